"""Faults of a data set as TFDS keeps it."""

import shutil


def with_fault(prepared, folder, fault):
    """Copies a data folder that holds one set, with a fault in it; the folder of its version."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    (info,) = folder.glob("*/*/dataset_info.json")
    (shard,) = info.parent.glob("*-train.array_record-*")
    if fault == "shard missing":
        shard.unlink()
    elif fault == "shard cut":
        shard.write_bytes(shard.read_bytes()[:100])
    elif fault == "info cut":
        info.write_text("{")
    elif fault == "tfrecord":
        info.write_text(info.read_text().replace("array_record", "tfrecord"))
        for shard in info.parent.glob("*.array_record-*"):
            shard.rename(shard.with_name(shard.name.replace("array_record", "tfrecord")))
    return info.parent
