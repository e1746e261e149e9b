"""The control plane: configuration, admin API, metrics. One process, slow and careful."""
