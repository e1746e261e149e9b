"""The request's body on its way through an exchange: read as fast as the endpoint takes it, and no faster."""

from time import perf_counter

from splitproxy.errors import ProxyError
from splitproxy.proxy.ending import Ending
from splitproxy.proxy.upload import Upload


class Receiving(Ending):
    """An exchange as far as it takes what the client sends."""

    __slots__ = ()

    def _begin_upload(self, rest: bytes) -> bytes:
        """Begin to take the body, if there is one; return what of `rest` follows it."""
        head = self.head
        if not head.chunked and not head.content_length:
            return rest
        self.upload_done = False
        self.upload = upload = Upload(head, self.service.limits.body_bytes)
        if rest:
            data, rest = upload.feed(rest)
            upload.waiting.append(data)
            self.upload_done = upload.done
        return rest

    def on_client_data(self, data: bytes) -> None:
        """Take bytes from the client: its body, or requests to come."""
        downstream, upload = self.downstream, self.upload
        if upload is not None and not self.upload_done:
            try:
                data, rest = upload.feed(data)
            except ProxyError as error:
                self.refuse(error)
                return
            if upload.done:
                self.upload_done, upload.ended = True, perf_counter()
            connection = self.connection
            if connection is None:
                upload.waiting.append(data)
                if not upload.done:
                    downstream.pause()
            else:
                if data:
                    connection.transport.write(data)
                self._expect_within(self.timeouts.response_head if upload.done else self._body_patience())
            data = rest
        if data:
            downstream.buffer += data
            if len(downstream.buffer) > self.service.limits.header_bytes:
                downstream.pause()

    def _body_patience(self) -> float:
        return self.timeouts.stream_idle if self.begun else self.service.limits.body_idle_timeout

    def pause_upload(self) -> None:
        """Stop reading the body: the endpoint does not keep up."""
        if not self.upload_done:
            self.downstream.pause()
            self._expect_within(self.timeouts.stream_idle)

    def resume_upload(self) -> None:
        """Read the body again."""
        if not self.upload_done:
            self.downstream.resume()
            self._expect_within(self._body_patience())
