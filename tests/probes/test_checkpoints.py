"""Checkpoints of all kinds are read as arrays by name, in the order of their numbers, and never run code."""

import json

import numpy as np
import pytest

from separatrix.probes.checkpoints import checkpoint_files, checkpoint_paths, read_checkpoint, read_tree, step_of
from separatrix.probes.operators import ProbeError

ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([1, 2], np.int64)}


def test_files_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("step-10.npz", "step-9.npz", "step-100.npz"):
        np.savez(tmp_path / name, **ARRAYS)
    (tmp_path / "notes.txt").write_text("no checkpoint")
    files = checkpoint_paths(tmp_path)
    assert [step_of(path, 0) for path in files] == [9, 10, 100]
    assert step_of(tmp_path / "last.npz", 7) == 7
    with pytest.raises(ProbeError, match="holds no checkpoint"):
        checkpoint_paths(tmp_path / "nowhere")
    (tmp_path / "step-10.pt").write_bytes(b"")
    with pytest.raises(ProbeError, match="checkpoints of NumPy and PyTorch: keep one format"):
        checkpoint_paths(tmp_path)


def test_numpy_files(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    read = read_checkpoint(tmp_path / "a.npz")
    assert all(np.array_equal(read[name], array) and read[name].dtype == array.dtype for name, array in ARRAYS.items())


def test_safetensors_files(tmp_path):
    header, content = {"__metadata__": {"made": "here"}}, b""
    half = np.array([1.0, -2.0], np.float32).view(np.uint32) >> 16  # the leading half of a float32 is a bfloat16
    pieces = {"w": ("F32", ARRAYS["w"]), "n": ("I64", ARRAYS["n"]), "b": ("BF16", half.astype(np.uint16))}
    for name, (kind, array) in pieces.items():
        header[name] = {
            "dtype": kind,
            "shape": array.shape,
            "data_offsets": [len(content), len(content) + array.nbytes],
        }
        content += array.tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content)
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert np.array_equal(read["w"], ARRAYS["w"])
    assert np.array_equal(read["n"], ARRAYS["n"])
    assert read["b"].astype(np.float32).tolist() == [1.0, -2.0]


def test_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.nn.Linear(2, 1).state_dict()
    for name, stored in (("a.pt", state), ("b.pth", {"epoch": 3, "state_dict": state})):
        torch.save(stored, tmp_path / name)
        read = read_checkpoint(tmp_path / name)
        assert all(torch.equal(read[key], value) for key, value in state.items())
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ProbeError, match=r"list\.pt holds no tensors by name"):
        read_checkpoint(tmp_path / "list.pt")
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    with pytest.raises(ProbeError, match=r"module\.pt cannot be read without running code in it"):
        read_checkpoint(tmp_path / "module.pt")


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    (tmp_path / "b.safetensors").write_bytes((9).to_bytes(8, "little") + b"not json!")
    np.savez(tmp_path / "c.npz", w=np.array([{}], object))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ProbeError, match=f"{path.name} cannot be read as a checkpoint"):
            read_checkpoint(path)


def test_a_subtree_is_what_lies_below_its_keys_or_has_them_in_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", **{"net.0.w": ARRAYS["w"], "net.0.b": ARRAYS["n"], "step": np.array(3)})
    assert list(read_checkpoint(tmp_path / "a.npz", "net.0")) == ["b", "w"]
    for subtree, sentence in (("net.1", "holds no 'net.1', but 0.w, 0.b"), ("step.x", "'x' would lie within an array")):
        with pytest.raises(ProbeError, match=sentence):
            read_checkpoint(tmp_path / "a.npz", subtree)


def test_orbax_folders_are_read_as_the_pytrees_that_were_saved(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    params = {"dense": {"kernel": ARRAYS["w"], "bias": np.zeros(3, np.float32)}, "layers": [ARRAYS["w"]]}
    state = {"params": params, "opt_state": {"mu": np.ones(3)}}
    with ocp.CheckpointManager(tmp_path / "manager") as manager:
        for step in (0, 30, 200):
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    (tmp_path / "manager" / "300.orbax-checkpoint-tmp-7" / "default").mkdir(parents=True)
    paths = checkpoint_paths(tmp_path / "manager")
    assert [step_of(path, 0) for path in paths] == [0, 30, 200]  # what was not finished is left out
    assert len(checkpoint_files(paths[0])) > 2
    read = read_checkpoint(paths[0], "params")
    assert list(read) == ["dense.bias", "dense.kernel", "layers.0"]
    assert np.array_equal(read["dense.kernel"], ARRAYS["w"])
    assert isinstance(read_tree(paths[0], "params")["layers"], list)
    with pytest.raises(ProbeError, match="holds opt_state, params: say which are the parameters, with subtree"):
        read_checkpoint(paths[0])
    with pytest.raises(ProbeError, match="is an Orbax checkpoint itself"):
        checkpoint_paths(paths[0])
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(tmp_path / "alone" / "step_7", params)
    assert list(read_checkpoint(*checkpoint_paths(tmp_path / "alone"))) == list(read)
