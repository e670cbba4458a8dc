"""Sources, archives and images: nothing that is read is run, and nothing is fetched unasked.

What strangers can put into a run folder is in test_strange_folders.py.
"""

import ast
import io
import os
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_data import of_two_classes, write_folder
from PIL import EpsImagePlugin, Image
from test_cifar_archive import archive_files, small, write_archive

from experiments.data import cifar, cifar_archive, image_file, load_streamed

PROJECT = Path(__file__).parents[1]

# Sources

PICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {
    *("eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "torch.load"),
    *("__import__", "importlib.import_module"),
}


def dangers(source):
    """What in a source could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name for name in names if name.split(".")[0] in PICKLING)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in CALLS:
            yield called
        for option in ("shell", "allow_pickle"):
            if given.get(option, "False") != "False":
                yield option
        if called in ("np.load", "numpy.load") and "allow_pickle" not in given:
            yield "np.load that does not say allow_pickle"


def test_no_source_runs_what_it_reads():
    files = [f for p in ("ovsw_jax", "experiments", "benchmarks") for f in (PROJECT / p).rglob("*")]
    found = {
        (file.relative_to(PROJECT).as_posix(), danger)
        for file in files
        if file.suffix == ".py"
        for danger in dangers(file.read_text(encoding="utf-8"))
    }
    # The one place where a name becomes code: one that the user gave, as test_strange_folders.py
    # checks.
    assert found == {("experiments/training/networks.py", "importlib.import_module")}


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import os, pickle", "pickle"),
        ("def late():\n    from dill.source import x", "dill.source"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "allow_pickle"),
        ("import numpy as np\nnp.load(f)", "np.load that does not say allow_pickle"),
        ("x = eval(text)", "eval"),
        ("import os\nos.system('ls')", "os.system"),
        ("import subprocess\nsubprocess.run('ls', shell=flag)", "shell"),
        ("import torch\ntorch.load(f)", "torch.load"),
        ("import importlib\nimportlib.import_module(name)", "importlib.import_module"),
    ],
)
def test_the_scan_can_fail(source, danger):
    assert list(dangers(source)) == [danger]
    assert list(dangers("model.eval()\nnp.load(f, allow_pickle=False)\nrun(x, shell=False)")) == []


def refused(message, read, *arguments):
    """With the message, and before much memory is taken."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read(*arguments)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


# Archives


@pytest.fixture(scope="module")
def which():
    return small(cifar.CIFAR10)


MEMBERS = {
    "parent": {"name": "../../escaped"},
    "absolute": {"name": "ELSEWHERE/escaped"},
    "symlink": {"name": "cifar-10-batches-bin", "type": tarfile.SYMTYPE, "linkname": "ELSEWHERE"},
    "hard link": {"name": "hard", "type": tarfile.LNKTYPE, "linkname": "../../valuable"},
    "device": {"name": "device", "type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
    "fifo": {"name": "fifo", "type": tarfile.FIFOTYPE},
}


def with_member(path, fields, elsewhere):
    """The archive with one more member, before all others."""
    member = tarfile.TarInfo()
    for name, value in fields.items():
        text = isinstance(value, str) and name != "type"
        setattr(member, name, value.replace("ELSEWHERE", str(elsewhere)) if text else value)
    with tarfile.open(path) as old:
        kept = [(m, old.extractfile(m).read()) for m in old]
    with tarfile.open(path, "w:gz") as new:
        new.addfile(member)
        for other, content in kept:
            new.addfile(other, io.BytesIO(content))
    return member


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_would_be_written_elsewhere(name, which, tmp_path):
    """They are passed over, and the records are those of the archive without them."""
    files, splits = archive_files(which)
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    (tmp_path / "valuable").write_text("valuable")
    archive = write_archive(place / which.archive, which.folder, files)
    plain = cifar_archive.read(which, archive)
    with_member(archive, MEMBERS[name], tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    found = cifar_archive.read(which, archive)
    for split in splits:
        np.testing.assert_array_equal(found[split], plain[split])
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_no_link_or_device_stands_for_a_file(kind, which, tmp_path):
    """Else the archive would be filled from any file that it names."""
    files, _ = archive_files(which)
    content = files.pop("test_batch.bin")
    (tmp_path / "secret").write_bytes(content)
    archive = write_archive(tmp_path / which.archive, which.folder, files)
    name = f"{which.folder}/test_batch.bin"
    secret = str(tmp_path / "secret")
    with_member(archive, {"name": name, "type": kind, "linkname": secret}, tmp_path)
    with pytest.raises(ValueError, match=r"it has no file cifar-10-batches-bin/test_batch\.bin"):
        cifar_archive.read(which, archive)


@pytest.mark.parametrize("name", ["test_batch.bin", "batches.meta.txt", "large"])
def test_huge_sizes_are_refused_before_they_are_read(name, which, tmp_path):
    archive = tmp_path / which.archive
    header = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    header.size = 2**60
    with tarfile.open(archive, "w:gz") as tar:
        tar.fileobj.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    message = r"1,152,921,504,606,846,976 bytes|is damaged or no tar"
    refused(message, cifar_archive.read, which, archive)


@pytest.mark.parametrize(
    "kind",
    [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE],
)
def test_long_names_and_attributes_are_not_read(kind, which, tmp_path):
    """Which `tarfile` does before anyone sees the member; a few kilobytes hold megabytes."""
    archive = tmp_path / which.archive
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 2**25
    with tarfile.open(archive, "w:gz") as tar:
        tar.fileobj.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(2**5):
            tar.fileobj.write(b"9" * 2**20)
    refused("is damaged or no tar", cifar_archive.read, which, archive)


# Images


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks, side=4):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(3 * side)) * min(side, 1000))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMB = zlib.compress(bytes(2**27))  # 128 MiB from 128 KiB
CHUNKS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + BOMB),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CHUNKS)
def test_text_that_decompresses_to_much(name, streamed, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png())
    assert image_file.decode(path).shape == (4, 4, 3)
    path.write_bytes(png(CHUNKS[name]))
    read = (image_file.decode_centre, path, None, 4, 4) if streamed else (image_file.decode, path)
    refused(r"bomb\.png cannot be decoded: it is damaged or no image", *read)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_streamed_image_that_announces_too_many_pixels(split, tmp_path):
    write_folder(tmp_path, of_two_classes(2, 1), size=(20, 20))
    bomb = tmp_path / split / "ant" / "000.png"
    bomb.write_bytes(png(side=10_000))
    dataset = load_streamed(str(tmp_path), image_size=8, workers=1)
    batches = dataset.train_batches(0, 0, 1) if split == "train" else dataset.test_batches(1)
    message = rf"{bomb} announces more pixels than the limit against decompression bombs allows"
    with pytest.raises(ValueError, match=message):
        list(batches)


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    """As Pillow itself does for this format, whatever the name of the file."""
    path, started = tmp_path / "drawing.png", []
    Image.new("RGB", (4, 4)).save(path, format="EPS")

    def ghostscript(*_):
        started.append("gs")
        return Image.new("RGB", (4, 4)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    with pytest.raises(ValueError, match=r"drawing\.png cannot be decoded: it is damaged or no i"):
        image_file.decode(path)
    assert not started
    with Image.open(path) as image:
        image.load()
    assert started


# The network

GUARDED = """
import sys
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        sys.exit(f"asked for {arguments[0]}")
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if not isinstance(address, tuple) or not str(address[0]).startswith(("127.", "::1")):
            sys.exit(f"connected to {address}")
sys.addaudithook(refuse)
"""


def guarded(program, *arguments):
    command = [sys.executable, "-W", "error", "-c", GUARDED + program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "XLA_FLAGS": ""}
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    return subprocess.run(command, cwd=PROJECT, env=environment, **options)


JOB = """
from experiments import train

sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.long
def test_the_default_job_opens_no_connection(tmp_path):
    """From the data to the figures, with checkpoints; but of fewer epochs and a small network."""
    given = ["--epochs", "1", "--seeds", "0", "--batch-size", "256", "--checkpoint-seconds", "0"]
    given += ["--network", "tiny_networks:Tiny"]
    done = guarded(JOB, *given, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "figures" / "headline.png").exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import socket\nsocket.getaddrinfo('example.org', 80)", "asked for example.org"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)", "192.0.2.1"),
        (
            "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
            "connected to ('192.0.2.1', 9)",
        ),
    ],
)
def test_the_guard_can_fail(program, said):
    done = guarded(program)
    assert done.returncode == 1
    assert said in done.stderr
