"""What ./run and the integration tests rely on: half an answer is none, a
process that ends is told with its last words, a port's holder has a name."""

import contextlib
import http.server
import os
import sys
import tempfile
import threading
import time
import unittest

from config.setup.local_stack import EventStream, Process, StackError, port_holder, port_is_free, wait_ready

WHOLE = [b'data: {"choices":[{"delta":{"content":"A riv"}}]}\n\n: keep-alive\n\n',
         b'data: {"choices":[{"delta":{"content":"er."},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"]


@contextlib.contextmanager
def answering(pieces, cut=False):
    """A server that answers every POST with these pieces, chunked; yields its address."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if not cut:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def answer(pieces, cut=False):
    with answering(pieces, cut) as address, EventStream(address, "/v1/chat/completions", {}) as stream:
        return "".join(stream.tokens())


class EventStreamTest(unittest.TestCase):
    def test_joins_the_pieces_of_an_answer(self):
        self.assertEqual(answer(WHOLE), "A river.")

    def test_an_answer_without_its_end_is_an_error(self):
        for pieces, cut in [(WHOLE[:1], False), (WHOLE[:2], False), (WHOLE[:1], True), ([], False),
                            ([WHOLE[0], WHOLE[2]], False)]:
            with self.assertRaises(StackError):
                answer(pieces, cut)

    def test_an_error_event_is_an_error_with_its_message(self):
        with self.assertRaisesRegex(StackError, "the backend is gone"):
            answer([WHOLE[0], b'data: {"error":{"message":"the backend is gone"}}\n\n'], cut=True)

    def test_nobody_there_is_one_line(self):
        with answering(WHOLE) as address:
            pass
        with self.assertRaisesRegex(StackError, "^POST http://127.0.0.1:[0-9]+/x: .*refused"):
            EventStream(address, "/x", {})


class ProcessTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def process(self, code):
        process = Process("engine 9", [sys.executable, "-c", code], os.path.join(self.folder.name, "log"))
        self.addCleanup(process.kill)
        return process

    def test_a_process_that_ends_before_it_is_ready_is_told_with_its_last_words(self):
        process = self.process("import sys; print('starting', flush=True); sys.exit('no such model')")
        with self.assertRaisesRegex(StackError, "engine 9 ended with status 1; the last it said: no such model"):
            wait_ready(process, "127.0.0.1:1", "/health")

    def test_stop_insists_where_a_process_does_not_listen(self):
        process = self.process("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                               "print('deaf', flush=True)\nwhile True: time.sleep(1)")
        while process.last_words() != "deaf":
            time.sleep(0.01)
        self.assertEqual(process.stop(seconds=0.1), -9)

    def test_a_program_that_is_not_there_is_one_line(self):
        with self.assertRaisesRegex(StackError, "proxy does not start: No such file or directory: /no/penstock"):
            Process("proxy", ["/no/penstock"], os.path.join(self.folder.name, "log"))


class PortTest(unittest.TestCase):
    def test_names_who_holds_a_port(self):
        with answering([]) as address:
            port = int(address.rsplit(":", 1)[1])
            self.assertFalse(port_is_free(port))
            self.assertIn(f"(process {os.getpid()})", port_holder(port))
        self.assertTrue(port_is_free(port))
        self.assertEqual(port_holder(port), "")


if __name__ == "__main__":
    unittest.main()
