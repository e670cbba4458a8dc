"""TensorBoard's files hold what metrics.jsonl holds, as an independent reader finds it."""

import struct

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from experiments.run.events import EventFile

VALUES = {"loss": 0.5, "test_top1": 0.25, "flip_ratio/layer1/0/conv1": 0.125, "odd name!": 2.0}


def crc32c(content):
    """Bit by bit, of the Castagnoli polynomial."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(content):
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def events(folder):
    (path,) = folder.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    content, found = path.read_bytes(), []
    while content:
        length, of_length = struct.unpack("<QI", content[:12])
        record, (of_record,) = (
            content[12 : 12 + length],
            struct.unpack_from("<I", content, 12 + length),
        )
        assert (of_length, of_record) == (masked(content[:8]), masked(record))
        found.append(Event.FromString(record))
        content = content[16 + length :]
    return found


def scalars(folder):
    return sorted((e.step, v.tag, v.simple_value) for e in events(folder) for v in e.summary.value)


def test_the_checksum_of_this_reader():
    assert crc32c(b"123456789") == 0xE3069283


def test_scalars_are_those_that_tensorboardx_writes(tmp_path):
    ours, theirs = EventFile(tmp_path / "runs" / "ours"), SummaryWriter(str(tmp_path / "theirs"))
    for step in (3, 6):
        ours.add_scalars(VALUES, step)
        for tag, value in VALUES.items():
            theirs.add_scalar(tag, value, step)
    written = scalars(tmp_path / "runs" / "ours")  # before it is closed: all is on disk at once
    ours.close(), theirs.close()
    assert written == scalars(tmp_path / "runs" / "ours") == scalars(tmp_path / "theirs")
    assert (3, "loss", 0.5) in written
    assert events(tmp_path / "runs" / "ours")[0].file_version == "brain.Event:2"
