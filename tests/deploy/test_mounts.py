"""What is known of a place before rollouts are remembered there."""

from pathlib import Path

import pytest

from splitproxy.mounts import loss

HOST = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
25 22 0:23 / /dev/shm rw,nosuid - tmpfs tmpfs rw
26 22 0:24 / /run rw,nosuid shared:5 master:1 - tmpfs tmpfs rw,size=1g
30 22 254:2 / /srv/a\\040disk rw - xfs /dev/vdb rw
31 22 0:40 / /mnt rw - tmpfs tmpfs rw
32 22 254:3 / /mnt rw - ext4 /dev/vdc rw
"""
CONTAINER = """\
500 400 0:60 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
501 500 0:61 / /dev rw,nosuid - tmpfs tmpfs rw
510 500 254:1 /docker/volumes/state/_data /var/lib/splitproxy rw - ext4 /dev/vda1 rw
511 500 254:1 /var/lib/kubelet/pods/9f/volumes/kubernetes.io~empty-dir/state /empty rw - ext4 /dev/vda1 rw
512 500 254:9 /var/lib/kubelet/pods/9f/volumes/kubernetes.io~csi/pvc-1/mount /claim rw - ext4 /dev/sdb rw
513 500 254:1 /var/lib/kubelet/pods/9f/volumes/kubernetes.io~empty-dir/state/below /deeper rw - ext4 /dev/vda1 rw
"""


@pytest.mark.parametrize(
    ("table", "path", "why"),
    [
        (HOST, "/var/lib/splitproxy/splitproxy.db", None),
        (HOST, "/srv/a disk/splitproxy.db", None),
        (HOST, "/mnt/splitproxy.db", None),  # what was mounted later hides what was there
        (HOST, "/dev/shm/splitproxy.db", "it is in memory (/dev/shm is a tmpfs): "),
        (HOST, "/run/splitproxy/deep/splitproxy.db", "it is in memory (/run is a tmpfs): "),
        (HOST, "/runner/splitproxy.db", None),
        (CONTAINER, "/var/lib/splitproxy/splitproxy.db", None),
        (CONTAINER, "/claim/splitproxy.db", None),
        (CONTAINER, "/etc/splitproxy/splitproxy.db", "it is in the container's own layer (overlay at /): "),
        (CONTAINER, "/empty/splitproxy.db", "it is in an emptyDir (/empty): "),
        (CONTAINER, "/deeper/splitproxy.db", "it is in an emptyDir (/deeper): "),
        ("", "/splitproxy.db", None),
    ],
)
def test_what_is_lost_is_said(tmp_path, table, path, why):
    file = tmp_path / "mountinfo"
    file.write_text(table)
    said = loss(Path(path), file)
    assert said is None if why is None else said.startswith(why)


def test_the_kernels_own_table_is_understood():
    if Path("/dev/shm").is_mount():
        assert "in memory" in loss(Path("/dev/shm/splitproxy.db"))
    assert loss(Path("/anywhere"), Path("/no/such/table")) is None
