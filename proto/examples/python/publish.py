"""Publishes JSON lines to DTM and survives being cut off.

What a client has to do, and this one does:
  - number its records from 1, without holes, and never give a number to another record;
  - keep every record until an ack covers it;
  - after a cut, open again and go on from the `next_sequence` that the cluster names: what lies
    below it is stored, whatever became of the ack;
  - show refusals: a refused record is kept in quarantine and its neighbours went on. A refusal is
    said once, beside the ack; what was said while nobody listened is read from the quarantine.

What this one does not do: keep records after their ack. Where the cluster has a standby
(`Opened.site_copies`), a site that is lost takes with it what the standby did not have yet; a
client that wants to send that again keeps every record until `Ack.site_through` covers it, as the
SDK and the agent do. This one says which records those are, and ends.
"""

import argparse
import collections
import queue
import random
import sys
import threading
import time

import grpc

from dtm.format.v1 import format_pb2
from dtm.ingest.v1 import ingest_pb2 as pb
from dtm.ingest.v1 import ingest_pb2_grpc
from dtm.records.v1 import records_pb2
from dtm.records.v1 import records_pb2_grpc

# Said by the cluster; these are its defaults.
IN_FLIGHT_BYTES = 1 << 20
FRAME_BYTES = 64 << 10
FRAME_RECORDS = 500
# What a record and its frame add to its payload on the wire, at most.
RECORD_OVERHEAD = 32
# No ack for so long while one is owed: the outcome is unknown, so ask again.
ACK_TIMEOUT_S = 30.0
FINAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ABORTED,  # a newer connection took the stream over
}


def cost(payload):
    """Bytes of the window: the node counts whole requests."""
    return len(payload) + RECORD_OVERHEAD


class Cut(Exception):
    """The connection is gone or silent: try again."""


class Publisher:
    """One stream. `unacked` holds (sequence, payload) until an ack covers it."""

    def __init__(self, args):
        self.args = args
        self.addresses = list(args.address)
        self.unacked = collections.deque()
        self.acked = 0
        self.conflict_told = 0
        self.ack = pb.Ack()
        self.refused = {}
        self.refused_in_all = 0
        self.missed_through = 0  # refusals up to here may have been said while nobody listened
        self.next_input = None  # sequence of the next line of the input
        self.skip = 0  # lines of the input that an earlier run has stored
        self.window = IN_FLIGHT_BYTES
        self.waiting = None  # a line that the window has no room for yet
        self.frame_bytes = FRAME_BYTES

    def channel(self, address):
        options = [
            ("grpc.max_receive_message_length", 16 << 20),
            ("grpc.keepalive_time_ms", 10_000),
        ]
        if self.args.plaintext:
            return grpc.insecure_channel(address, options)
        if self.args.server_name:
            options.append(("grpc.ssl_target_name_override", self.args.server_name))
        read = lambda path: open(path, "rb").read() if path else None
        credentials = grpc.ssl_channel_credentials(
            read(self.args.ca), read(self.args.certificate_key), read(self.args.certificate)
        )
        return grpc.secure_channel(address, credentials, options)

    def open_request(self):
        return pb.PublishRequest(
            open=pb.Open(
                source=self.args.source,
                stream=self.args.stream,
                dataset=self.args.dataset,
                mode=format_pb2.MODE_REALTIME,
                form=format_pb2.FORM_RAW,
                ids=pb.ID_POLICY_SEQUENCE,
                acked_through=self.acked,
                incarnation=self.ack.incarnation,
                ack_token=self.ack.token,
                client="dtm-python-example/1",
            )
        )

    def run(self, lines):
        """Sends every line; returns when all are acked and every refusal is told."""
        self.retry(lambda address: self.session(address, lines))
        if self.missed_through:
            self.retry(self.missed_refusals)

    def retry(self, work):
        """Calls `work` with one address after the other until it gives None; an address that it
        gives is where to go next."""
        failures = 0
        turn = 0
        address = None
        while True:
            address = address or self.addresses[turn % len(self.addresses)]
            before = self.acked
            try:
                address = work(address)
                if address is None:
                    return
                continue  # advised to go elsewhere
            except grpc.RpcError as error:
                if error.code() in FINAL:
                    raise
                reason = error.details() or error.code().name
            except Cut as cut:
                reason = str(cut)
            failures = 0 if self.acked > before else failures + 1
            pause = min(5.0, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)
            print(f"cut off ({reason}); again in {pause:.2f} s", file=sys.stderr)
            time.sleep(pause)
            turn, address = turn + 1, None

    def session(self, address, lines):
        """One connection. Returns None when all is done, or the address to go to."""
        outgoing = queue.Queue(maxsize=16)
        answers = queue.Queue()
        with self.channel(address) as channel:
            outgoing.put(self.open_request())
            call = ingest_pb2_grpc.IngestServiceStub(channel).Publish(
                iter(outgoing.get, None), metadata=self.metadata()
            )
            try:
                start_reader(call, answers)
                opened = self.first_answer(answers)
                self.resume(opened)
                print(f"connected to {opened.node or address}, next sequence "
                      f"{opened.next_sequence}", file=sys.stderr)
                return self.stream(opened.next_sequence, lines, outgoing, answers)
            finally:
                call.cancel()
                # Ends the thread that feeds the call, if it still waits.
                if not outgoing.full():
                    outgoing.put(None)

    def metadata(self):
        return (("authorization", f"Bearer {self.args.key}"),) if self.args.key else ()

    def missed_refusals(self, address):
        """Tells what was refused while nobody listened: by an earlier run, or while the connection
        was lost. What the quarantine does not hold any more is in the stream's count."""
        source, stream = self.args.source, self.args.stream
        with self.channel(address) as channel:
            asked = records_pb2.QuarantineRequest(source=source, stream=stream, from_sequence=1)
            pages = records_pb2_grpc.RecordsServiceStub(channel).Quarantine(
                asked, metadata=self.metadata(), timeout=ACK_TIMEOUT_S * 10
            )
            for page in pages:
                self.take_refusals(r for r in page.records if r.sequence <= self.missed_through)
            status = ingest_pb2_grpc.IngestServiceStub(channel).Status(
                pb.StatusRequest(source=source, stream=stream),
                metadata=self.metadata(), timeout=ACK_TIMEOUT_S,
            )
        self.refused_in_all = status.refused

    def first_answer(self, answers):
        try:
            kind, answer = answers.get(timeout=ACK_TIMEOUT_S)
        except queue.Empty:
            raise Cut("no answer to Open in time") from None
        if kind == "error":
            raise answer
        if kind != "opened":
            raise Cut("the first answer is not Opened")
        return answer

    def resume(self, opened):
        """Compares the cluster's cursor with ours."""
        stored = opened.next_sequence - 1
        # Whose refusals were said is not known for what was stored before this connection.
        self.missed_through = max(self.missed_through, stored)
        if opened.window.in_flight_bytes_max:
            self.window = opened.window.in_flight_bytes_max
        if opened.window.frame_bytes_max:
            self.frame_bytes = min(FRAME_BYTES, opened.window.frame_bytes_max)
        if self.next_input is None:
            # The n-th line has sequence n, so an earlier run's lines are passed over.
            self.skip, self.next_input = stored, 1
            self.acked = max(self.acked, stored)
            return
        if stored < self.acked:
            # Everything acked has been dropped here: only a client with a spool can resend it.
            sys.exit(f"LOST: {opened.next_sequence} to {self.acked} were acked and are gone")
        if stored >= self.next_input:
            sys.exit(f"somebody else wrote to this stream: it holds {stored}")
        self.take_ack(stored)

    def take_ack(self, through):
        self.acked = max(self.acked, through)
        while self.unacked and self.unacked[0][0] <= through:
            self.unacked.popleft()

    def fill(self, lines):
        """Reads lines while the window has room; returns whether the input has ended."""
        held = sum(cost(payload) for _, payload in self.unacked)
        while True:
            if self.waiting is None:
                line = next(lines, None)
                if line is None:
                    return True
                self.waiting = line.strip()
            # A record that is larger than the whole window goes alone.
            if self.unacked and held + cost(self.waiting) > self.window:
                return False
            payload, self.waiting = self.waiting, None
            if not payload:
                continue
            sequence, self.next_input = self.next_input, self.next_input + 1
            if sequence <= self.skip:
                continue
            self.unacked.append((sequence, payload))
            held += cost(payload)

    def frame_from(self, sequence):
        """The unacked records from `sequence` on, up to the size of a frame and what the window
        has left. A record that is larger goes alone, when nothing else is on its way."""
        frame, size = pb.Frame(first_sequence=sequence), 0
        flying = sum(cost(payload) for number, payload in self.unacked if number < sequence)
        room = min(self.frame_bytes, self.window - flying)
        assert not self.unacked or sequence >= self.unacked[0][0]
        for number, payload in self.unacked:
            if number < sequence:
                continue
            if (frame.records or flying) and (size + cost(payload) > room
                                              or len(frame.records) >= FRAME_RECORDS):
                break
            frame.records.add(payload=payload)
            size += cost(payload)
        return frame

    def stream(self, send_next, lines, outgoing, answers):
        heard, closing = time.monotonic(), False
        while True:
            ended = self.fill(lines)
            # An ack may have overtaken a rewind: what it covers is gone here and not sent again.
            send_next = max(send_next, self.acked + 1)
            if self.args.slow:
                time.sleep(self.args.slow)
            while self.unacked and send_next <= self.unacked[-1][0] and not outgoing.full():
                frame = self.frame_from(send_next)
                if not frame.records:
                    break
                outgoing.put(pb.PublishRequest(frame=frame))
                send_next += len(frame.records)
            if ended and not self.unacked and not closing:
                outgoing.put(pb.PublishRequest(close=pb.Close(finished=False)))
                closing = True
            try:
                kind, answer = answers.get(timeout=0.05)
            except queue.Empty:
                if not self.unacked and not closing:
                    heard = time.monotonic()
                if time.monotonic() - heard > ACK_TIMEOUT_S:
                    raise Cut("no ack in time: outcome unknown") from None
                continue
            if not (kind == "ack" and answer.only_site):
                heard = time.monotonic()
            if kind == "error":
                raise answer
            if kind == "end":
                if closing:
                    return None
                raise Cut("the server ended the call")
            if kind == "ack":
                self.ack = answer
                self.take_ack(answer.acked_through)
                if not answer.only_site:
                    print(f"acked {self.acked}", file=sys.stderr)
            elif kind == "refused":
                self.take_refusals(answer.records)
            elif kind == "rewind":
                if answer.reason == pb.REWIND_REASON_CONFLICT:
                    for sequence in answer.conflict_sequences or [answer.conflict_sequence]:
                        if sequence > self.conflict_told:
                            print(f"CONFLICT: sequence {sequence} is held with other content, "
                                  "which stays", file=sys.stderr)
                            self.conflict_told = sequence
                    # Only this one is known to be held: what follows is sent again.
                    self.take_ack(answer.conflict_sequence)
                    send_next = max(answer.conflict_sequence, self.acked) + 1
                else:
                    send_next = answer.expected_sequence
            elif kind == "reconnect" and answer.address:
                return answer.address
            elif kind == "window":
                self.window = answer.in_flight_bytes_max or self.window
            elif kind == "closed":
                return None

    def take_refusals(self, records):
        """Tells each refusal once."""
        for record in records:
            if record.sequence in self.refused:
                continue
            words = record.messages_en if self.args.language == "en" else record.messages_vi
            self.refused[record.sequence] = list(words)
            print(f"refused {record.sequence}: {'; '.join(words)}")


def start_reader(call, answers):
    """Hands over what the server says. gRPC's own iterator blocks, so it gets a thread."""
    def read():
        try:
            for answer in call:
                kind = answer.WhichOneof("response")
                if kind:
                    answers.put((kind, getattr(answer, kind)))
            answers.put(("end", None))
        except grpc.RpcError as error:
            answers.put(("error", error))

    threading.Thread(target=read, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="JSON lines; - reads standard input")
    parser.add_argument("--address", action="append", required=True, help="host:port; repeatable")
    parser.add_argument("--source", required=True)
    parser.add_argument("--stream", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--key", help="source key, dtm_SOURCE_KEYID_SECRET")
    parser.add_argument("--ca", help="CA certificate of the cluster, PEM")
    parser.add_argument("--certificate", help="certificate of the source, PEM")
    parser.add_argument("--certificate-key", help="its key, PEM")
    parser.add_argument("--server-name", help="name in the servers' certificates")
    parser.add_argument("--plaintext", action="store_true", help="no TLS: for tests only")
    parser.add_argument("--language", choices=["vi", "en"], default="vi")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds between two rounds")
    args = parser.parse_args()
    if not args.plaintext and not args.ca:
        parser.error("--ca is needed (or --plaintext for tests)")
    source = sys.stdin.buffer if args.file == "-" else open(args.file, "rb")
    publisher = Publisher(args)
    try:
        publisher.run(iter(source))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    refused = max(len(publisher.refused), publisher.refused_in_all)
    if refused > len(publisher.refused):
        print(f"{refused - len(publisher.refused)} refused records are in no quarantine any more")
    print(f"acked through {publisher.acked}, refused {refused}")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
