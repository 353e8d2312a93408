"""Is a model refused unless it is self-contained, standard, and what its manifest says?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from millrace.infra.models import inspect, parse_outputs
from millrace.infra.models.graph import digest_of, examine
from millrace.infra.models.networks import model, perceptron
from millrace.infra.models.session import Session, SessionSettings, open_session
from millrace.schemas.errors import ModelRefused, SettingsError, UsageError
from millrace.schemas.model import Output

LIMIT = 1 << 20
FLOAT = TensorProto.FLOAT


def built(
    *nodes: Any, functions: tuple[Any, ...] = (), domains: tuple[str, ...] = (), outputs: Any = None, inputs: Any = None, **graph: Any
) -> Any:
    """A model over x (n, 2) and y (n, 2)."""
    made = helper.make_graph(
        list(nodes),
        "g",
        inputs or [helper.make_tensor_value_info("x", FLOAT, ["n", 2])],
        outputs or [helper.make_tensor_value_info("y", FLOAT, ["n", 2])],
        **graph,
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9, functions=list(functions))


def relu(name: str = "Relu", domain: str = "", **attributes: Any) -> Any:
    return helper.make_node(name, ["x"], ["y"], domain=domain, **attributes)


def external(name: str, location: str) -> Any:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def constant(tensor: Any) -> Any:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(node: Any, initializer: tuple[Any, ...] = ()) -> Any:
    """An ``If`` whose branches hold this node."""
    inside = helper.make_graph([node], "b", [], [helper.make_tensor_value_info(node.output[0], FLOAT, None)], list(initializer))
    return helper.make_node("If", ["condition"], ["y"], then_branch=inside, else_branch=inside)


def function(node: Any) -> Any:
    return helper.make_function("own", "Twice", ["x"], ["y"], [node], [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])


def refusal(made: Any) -> str:
    with pytest.raises(ModelRefused) as error:
        examine(made if isinstance(made, bytes) else made.SerializeToString(), LIMIT)
    return str(error.value)


OUTSIDE: dict[str, Callable[[str], Any]] = {
    "initializer": lambda path: built(helper.make_node("Add", ["x", "w"], ["y"]), initializer=[external("w", path)]),
    "constant": lambda path: built(constant(external("w", path)), helper.make_node("Add", ["x", "c"], ["y"])),
    "subgraph": lambda path: built(branch(constant(external("w", path)))),
    "subgraph initializer": lambda path: built(branch(relu(), (external("w", path),))),
    "function": lambda path: built(relu("Twice", "own"), functions=(function(constant(external("w", path))),), domains=("own",)),
}


class TestExternalData:
    @pytest.mark.parametrize("place", OUTSIDE)
    def test_a_tensor_outside_of_the_file_is_refused_wherever_it_stands(self, place: str, tmp_path: Path) -> None:
        assert "kept outside of the file" in refusal(OUTSIDE[place](str(tmp_path / "weights")))

    @pytest.mark.parametrize("link", [os.link, os.symlink])
    def test_no_link_beside_the_model_is_followed(self, link: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(np.array([7.0, 7.0], np.float32).tobytes())
        link(secret, tmp_path / "weights")
        monkeypatch.chdir(tmp_path)
        assert "kept outside of the file" in refusal(OUTSIDE["initializer"]("weights"))

    def test_an_address_in_this_process_is_refused(self) -> None:
        assert "kept outside of the file" in refusal(OUTSIDE["initializer"]("*/_ORT_MEM_ADDR_/*"))

    def test_a_location_alone_is_enough(self) -> None:
        tensor = external("w", "weights")
        tensor.data_location = TensorProto.DEFAULT
        assert "kept outside of the file" in refusal(built(helper.make_node("Add", ["x", "w"], ["y"]), initializer=[tensor]))


class TestOperators:
    def test_they_are_listed(self) -> None:
        assert examine(perceptron([2, 3, 1]), LIMIT).operators == ("Gemm", "Relu")

    @pytest.mark.parametrize(
        "node",
        [relu("Mine", "com.example"), relu("Gelu", "com.microsoft"), relu("Relu", "ai.onnx.preview.training"), relu("NoSuchOperator")],
    )
    def test_what_is_not_standard_is_refused_in_graph_subgraph_and_function(self, node: Any) -> None:
        domains = (node.domain,) if node.domain else ()
        for made in (
            built(node, domains=domains),
            built(branch(node)),
            built(relu("Twice", "own"), functions=(function(node),), domains=("own",)),
        ):
            assert "is not of standard ONNX" in refusal(made)

    def test_a_function_of_standard_operators_is_allowed(self) -> None:
        made = built(relu("Twice", "own"), functions=(function(relu()),), domains=("own",)).SerializeToString()
        assert examine(made, LIMIT).operators == ("Relu",)
        assert inspect(made).operators == ("Relu",)

    def test_what_draws_random_numbers_is_refused(self) -> None:
        assert "random" in refusal(built(relu("RandomNormalLike")))
        assert "random" in refusal(built(branch(helper.make_node("RandomUniform", [], ["y"], shape=[1]))))

    def test_zipmap_is_refused_with_a_hint(self) -> None:
        assert "zipmap': False" in refusal(built(relu("ZipMap", "ai.onnx.ml", classlabels_int64s=[0, 1])))


def test_what_is_no_model_is_refused() -> None:
    for data in (b"", b"not a model at all", b"\x00\x00\x00\x00ORTM" + b"\x00" * 64):
        assert "not an ONNX model" in refusal(data)


def test_the_size_has_a_limit() -> None:
    data = perceptron([2, 1])
    assert examine(data, len(data))
    with pytest.raises(ModelRefused, match=r"inference\.model_bytes"):
        examine(data, len(data) - 1)


class TestInspect:
    def test_the_manifest_names_everything(self) -> None:
        data = perceptron([3, 4, 1])
        manifest = inspect(data)
        assert (manifest.digest, manifest.size_bytes, manifest.input) == (digest_of(data), len(data), "features")
        assert manifest.features == ("f0", "f1", "f2")
        assert manifest.outputs == (Output(name="score", tensor="score", column=0),)
        assert isinstance(manifest.golden.outputs["score"], float)
        assert inspect(data) == manifest

    def test_a_tensor_of_several_columns_is_a_list(self) -> None:
        golden = inspect(perceptron([3, 4])).golden.outputs["score"]
        assert isinstance(golden, list)
        assert len(golden) == 4

    @pytest.mark.parametrize("text", ["a, b", '["a", "b"]'])
    @pytest.mark.parametrize("key", ["features", "feature_names"])
    def test_features_come_from_the_metadata(self, key: str, text: str) -> None:
        made = built(relu())
        helper.set_model_props(made, {key: text})
        assert inspect(made.SerializeToString()).features == ("a", "b")
        assert inspect(made.SerializeToString(), ["c", "d"]).features == ("c", "d")

    @pytest.mark.parametrize(
        ("features", "says"),
        [(["a"], "takes 2 features, 1 are named"), (["a", "a"], "'a' is named twice"), (["a", ""], "is empty")],
    )
    def test_features_must_fit(self, features: list[str], says: str) -> None:
        with pytest.raises(ModelRefused, match=says):
            inspect(built(relu()).SerializeToString(), features)

    def test_an_open_width_needs_names(self) -> None:
        shape: list[Any] = ["n", "k"]
        made = built(
            relu(), inputs=[helper.make_tensor_value_info("x", FLOAT, shape)], outputs=[helper.make_tensor_value_info("y", FLOAT, shape)]
        )
        with pytest.raises(ModelRefused, match="--features"):
            inspect(made.SerializeToString())
        assert inspect(made.SerializeToString(), ["a", "b", "c"]).features == ("a", "b", "c")

    @pytest.mark.parametrize(
        ("inputs", "says"),
        [
            ([("x", TensorProto.DOUBLE, ["n", 2])], "FloatTensorType"),
            ([("x", FLOAT, [1, 2])], "fixed batch size of 1"),
            ([("x", FLOAT, ["n"])], "must be .n, features."),
            ([("x", FLOAT, ["n", 2]), ("z", FLOAT, ["n", 2])], "has 2 inputs"),
        ],
    )
    def test_the_input_must_be_float32_rows(self, inputs: list[Any], says: str) -> None:
        kind, shape = inputs[0][1], inputs[0][2]
        made = built(
            relu(),
            inputs=[helper.make_tensor_value_info(*one) for one in inputs],
            outputs=[helper.make_tensor_value_info("y", kind, shape)],
        )
        with pytest.raises(ModelRefused, match=says):
            inspect(made.SerializeToString())

    def test_whole_numbers_and_booleans_become_floats(self) -> None:
        made = built(
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            helper.make_node("Greater", ["x", "x"], ["flags"]),
            outputs=[
                helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
                helper.make_tensor_value_info("flags", TensorProto.BOOL, ["n", 2]),
            ],
        )
        golden = inspect(made.SerializeToString()).golden.outputs
        assert golden["flags"] == [0.0, 0.0]
        assert golden["label"] in (0.0, 1.0)
        assert isinstance(golden["label"], float)

    def test_an_output_that_does_not_keep_rows_apart_is_refused(self) -> None:
        made = built(helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0), outputs=[helper.make_tensor_value_info("y", FLOAT, [])])
        with pytest.raises(ModelRefused, match="it must be"):
            inspect(made.SerializeToString())

    def test_a_model_that_mixes_the_rows_of_a_batch_is_refused(self) -> None:
        with pytest.raises(ModelRefused, match="in a batch of 2"):
            inspect(built(helper.make_node("Softmax", ["x"], ["y"], axis=0)).SerializeToString())

    def test_outputs_may_be_chosen_and_named(self) -> None:
        manifest = inspect(perceptron([3, 4]), None, parse_outputs("second=score:1,score"))
        assert manifest.golden.outputs["second"] == manifest.golden.outputs["score"][1]  # type: ignore[index]

    @pytest.mark.parametrize(
        ("text", "says"), [("nope", "no tensor 'nope'"), ("a=score:4", "column 4"), ("a=score:0,a=score:1", "named twice")]
    )
    def test_outputs_that_are_not_there_are_refused(self, text: str, says: str) -> None:
        with pytest.raises(ModelRefused, match=says):
            inspect(perceptron([3, 4]), None, parse_outputs(text))

    @pytest.mark.parametrize("text", ["", "=x", "a=", "a=b:c", "a,,b"])
    def test_an_unreadable_list_of_outputs_is_a_wrong_usage(self, text: str) -> None:
        with pytest.raises(UsageError, match="--outputs"):
            parse_outputs(text)

    def test_a_model_that_answers_nan_to_everything_is_refused(self) -> None:
        nan = numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
        with pytest.raises(ModelRefused, match="finite"):
            inspect(model([helper.make_node("Add", ["x", "nan"], ["y"])], {"x": 2}, {"y": 2}, [nan]))


class TestSession:
    def test_the_golden_answer_must_agree(self) -> None:
        data = perceptron([3, 4, 1])
        manifest = inspect(data)
        other = replace(manifest, golden=replace(manifest.golden, outputs={"score": manifest.golden.outputs["score"] + 0.01}))  # type: ignore[operator]
        Session(open_session(data, SessionSettings()), manifest).check()
        with pytest.raises(ModelRefused, match="golden input"):
            Session(open_session(data, SessionSettings()), other).check()

    @pytest.mark.parametrize("fields", [{"input": "other"}, {"features": ("a",)}, {"outputs": (Output(name="x", tensor="x"),)}])
    def test_the_signature_must_agree(self, fields: dict[str, Any]) -> None:
        data = perceptron([3, 1])
        with pytest.raises(ModelRefused):
            Session(open_session(data, SessionSettings()), replace(inspect(data), **fields)).check()

    def test_an_unknown_provider_is_named(self) -> None:
        with pytest.raises(SettingsError, match="CPUExecutionProvider"):
            open_session(perceptron([2, 1]), SessionSettings(providers=("NoSuchProvider",)))

    def test_rows_are_answered_alike_in_any_batch(self) -> None:
        data = perceptron([10, 16, 3])
        session = Session(open_session(data, SessionSettings()), inspect(data))
        rows = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
        alone = np.concatenate([session.run(row[np.newaxis])["score"] for row in rows])
        np.testing.assert_allclose(session.run(rows)["score"], alone, rtol=1e-5, atol=1e-6)


def test_scikit_learns_classifiers_are_served_with_label_and_probabilities() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    skl2onnx = pytest.importorskip("skl2onnx")
    rows = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    fitted = sklearn.LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(int))
    data = skl2onnx.to_onnx(fitted, rows[:1], options={"zipmap": False}).SerializeToString()
    manifest = inspect(data, ["a", "b", "c"], parse_outputs("label,score=probabilities:1"))
    session = Session(open_session(data, SessionSettings()), manifest)
    session.check()
    answer = session.run(rows)
    np.testing.assert_array_equal(answer["label"], fitted.predict(rows))
    np.testing.assert_allclose(answer["score"], fitted.predict_proba(rows)[:, 1], atol=1e-5)
    with pytest.raises(ModelRefused, match="zipmap"):
        inspect(skl2onnx.to_onnx(fitted, rows[:1]).SerializeToString())
