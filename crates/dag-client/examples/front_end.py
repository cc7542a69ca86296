"""A front end in miniature, in Python, without anything generated beforehand.

    pip install grpcio grpcio-tools
    PYTHONPATH=proto python3 crates/dag-client/examples/front_end.py 127.1.0.1:7400 ann@example.org

It does by hand what a client has to do: ask any node where the mailbox is, repeat with the same id
for as long as it takes, follow the reasons of refusals. Every step is checked.
"""

import sys
import time
import uuid

import grpc
from google.protobuf import descriptor_pb2  # noqa: F401  (grpcio-tools needs it loaded)

PROTO = "holdfast/mailbox/v1/mailbox_service.proto"
messages, services = grpc.protos_and_services(PROTO)
common = grpc.protos("holdfast/mailbox/v1/common.proto")
changes_proto = grpc.protos("holdfast/mailbox/v1/changes.proto")

MAIL = (
    b"From: Ben <ben@example.org>\r\nTo: Ann <ann@example.org>\r\nSubject: Minutes\r\n"
    b"\r\nNothing was decided.\r\n"
)
INBOX = common.SPECIAL_USE_INBOX
# One attempt is short, because a node vouches for itself no longer; patience is the caller's.
ATTEMPT, PATIENCE = 1.5, 60.0


class Refused(Exception):
    """An answer that a repetition would not change."""

    def __init__(self, reason, text):
        super().__init__(f"{reason}: {text}")
        self.reason = reason


def reason_of(error):
    """The stable reason and its facts, out of google.rpc.ErrorInfo; None where there is none.

    The details are read without the package of google.rpc: two messages of strings.
    """
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for number, detail in fields(value):
                if number == 3:
                    parts = dict(fields(detail))
                    if parts.get(1, b"").endswith(b"google.rpc.ErrorInfo"):
                        return read_info(parts.get(2, b""))
    return None, {}


def read_info(data):
    reason, facts = None, {}
    for number, value in fields(data):
        if number == 1:
            reason = value.decode()
        elif number == 3:
            pair = dict(fields(value))
            facts[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
    return reason, facts


def fields(data):
    """Fields of a protobuf message whose values have a length."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            _, at = varint(data, at)
        else:
            length, at = varint(data, at)
            yield key >> 3, data[at : at + length]
            at += length


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


# What a repetition with the same id may change: docs/errors.md.
AGAIN = {
    "NOT_ACTIVE_COPY", "NO_QUORUM", "GATE_CLOSED", "COPY_FAILED", "SHUTTING_DOWN", "OVERLOADED",
    "DISK_LOW", "DEADLINE_EXCEEDED", "OUTCOME_UNKNOWN", "RECORD_CORRUPT", "STALE_LINEAGE",
    "MAILBOX_MOVED",
}


class FrontEnd:
    def __init__(self, address):
        self.first = self.active = address

    def call(self, method, request):
        """Repeats a call with the same ids until an answer comes that counts."""
        end = time.monotonic() + PATIENCE
        while True:
            with grpc.insecure_channel(self.active) as channel:
                stub = services.MailboxServiceStub(channel)
                try:
                    answer = getattr(stub, method)(request, timeout=ATTEMPT)
                    return list(answer) if hasattr(answer, "__next__") else answer
                except grpc.RpcError as error:
                    reason, facts = reason_of(error)
                    if reason is not None and reason not in AGAIN:
                        raise Refused(reason, error.details()) from error
                    if time.monotonic() > end:
                        raise
            endpoint = facts.get("active_endpoint", "")
            self.active = endpoint.split("://")[-1] or self.first
            time.sleep(0.05)

    def locate(self, address):
        answer = self.call("LocateMailbox", messages.LocateMailboxRequest(address=address))
        self.active = answer.active_endpoint.split("://")[-1] or self.active
        return answer.mailbox


def new_id():
    return str(uuid.uuid4())


def main(node, address):
    front_end = FrontEnd(node)
    try:
        front_end.call(
            "CreateMailbox", messages.CreateMailboxRequest(address=address, request_id=new_id())
        )
    except Refused as refused:
        if refused.reason != "MAILBOX_EXISTS":
            raise
    mailbox = front_end.locate(address)
    folders = front_end.call("ListFolders", messages.ListFoldersRequest(mailbox=mailbox)).folders
    inbox = next(folder for folder in folders if folder.special_use == INBOX)
    get = messages.GetMailboxRequest(mailbox=mailbox)
    since = front_end.call("GetMailbox", get).mailbox.highest_modseq

    header = messages.DeliverHeader(
        delivery_id=new_id(),
        database_id=mailbox.database_id,
        envelope_from="ben@example.org",
        recipients=[messages.Recipient(mailbox_id=mailbox.mailbox_id, address=address)],
        size=len(MAIL),
    )
    delivery = messages.DeliverMessageRequest(header=header, content=MAIL)
    first = front_end.call("DeliverMessage", delivery).delivered.results[0]
    again = front_end.call("DeliverMessage", delivery).delivered.results[0]
    assert first.code == messages.DELIVER_CODE_STORED, first
    assert (again.code, again.uid) == (messages.DELIVER_CODE_DUPLICATE, first.uid), again

    fetch = messages.FetchMessageRequest(
        mailbox=mailbox, folder_id=inbox.folder_id, uid=first.uid, content=True,
        view=common.MESSAGE_VIEW_FULL,
    )
    frames = front_end.call("FetchMessage", fetch)
    assert b"".join(frame.chunk.data for frame in frames) == MAIL
    assert frames[0].message.envelope.subject == "Minutes", frames[0].message

    since_then = changes_proto.GetChangesRequest(mailbox=mailbox, since_modseq=since)
    changes = front_end.call("GetChanges", since_then).changes
    assert [change.uid for change in changes] == [first.uid], changes

    expunge = messages.ExpungeMessagesRequest(
        mailbox=mailbox, folder_id=inbox.folder_id, request_id=new_id(),
        uids=common.UidSet(ranges=[common.UidRange(first=first.uid, last=first.uid)]),
    )
    gone = front_end.call("ExpungeMessages", expunge)
    assert gone.vanished.ranges[0].first == first.uid, gone
    try:
        front_end.call("FetchMessage", fetch)
    except Refused as refused:
        assert refused.reason == "MESSAGE_NOT_FOUND", refused
    else:
        raise AssertionError("it was expunged")
    print("everything as promised")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} ADDRESS:PORT MAILBOX")
    main(sys.argv[1], sys.argv[2])
