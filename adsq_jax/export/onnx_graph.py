"""A function in JAX as an ONNX graph: its jaxpr, operation by operation, for the operations that the networks are made of.

Constants are computed here as far as they go. Where a layer is written in one way for CPUs and in another for all else, the
latter is taken, since it is XLA's own operation, which ONNX has too. One axis may be symbolic: the number of images.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

from adsq_jax.errors import InputError

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, from 2022: what reads ONNX today reads these
MAX_BYTES = 2**31 - 2**20  # of a file's weights: protobuf's limit, without the rest of the graph
_BATCH = "n"  # stands for the symbolic axis


class _Value(NamedTuple):
    """A tensor of the graph by its name, or a constant; an axis of 1 may stand for the jaxpr's longer one, as in NumPy."""

    content: str | np.ndarray
    shape: tuple[int | str, ...]


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self, images: str):
        self.images = images  # the input's name; its first axis is the batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def name(self, value: _Value | np.ndarray | str) -> str:
        """Return a value's name; a constant gets one."""
        content = value.content if isinstance(value, _Value) else value
        if isinstance(content, str):
            return content
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(content).reshape(content.shape)  # which made an axis of none
        return name

    def add(self, operation: str, *inputs: _Value | np.ndarray | str, **attributes: Any) -> str:
        """Add a node; return its output's name."""
        output = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, [self.name(x) for x in inputs], [output], **attributes))
        return output

    def whole(self, value: _Value, shape: tuple[int | str, ...]) -> _Value:
        """Repeat a value along the axes on which it has length 1 and the jaxpr more."""
        if value.shape == shape:
            return value
        if isinstance(value.content, np.ndarray) and _BATCH not in shape:
            return _Value(np.broadcast_to(value.content, [int(side) for side in shape]), shape)
        batch = self.add("Slice", self.add("Shape", self.images), *(np.array([x], np.int64) for x in (0, 1, 0)))
        lengths = [batch if side == _BATCH else np.array([side], np.int64) for side in shape]
        return _Value(self.add("Expand", value, self.add("Concat", *lengths, axis=0)), shape)


def model(
    function: Callable[..., Sequence[jax.Array]],
    variables: Any,
    images: jax.ShapeDtypeStruct,
    *,
    outputs: Sequence[str],
    metadata: Mapping[str, str],
    producer: str,
) -> onnx.ModelProto:
    """Translate a function into an ONNX model with one input, `images`.

    Args:
      function: of variables and images, pure; it returns arrays whose first axis is the batch.
      variables: a tree of arrays, which become the model's constants.
      images: shape and dtype; the first axis symbolic, by jax.export.symbolic_shape.
      outputs: names of the function's results.
      metadata: texts by name, which the model carries.
      producer: name and version of what made the model, with a space between them.

    Returns:
      The model.

    Raises:
      InputError: the function has an operation that isn't known here, or more than MAX_BYTES of weights.
    """
    closed = jax.make_jaxpr(function)(variables, images)
    graph = _Graph("images")
    constants = [_constant(x) for x in (*closed.consts, *jax.tree.leaves(variables))]
    size = sum(x.content.nbytes for x in constants if isinstance(x.content, np.ndarray))
    if size > MAX_BYTES:
        raise InputError(f"expected weights of at most {MAX_BYTES:,} bytes for ONNX, got {size:,}; fix: export into a folder")
    first, rest = constants[: len(closed.consts)], constants[len(closed.consts) :]
    found = _run(graph, closed.jaxpr, first, [*rest, _Value(graph.images, _shape(images))])
    results = []
    for name, value, aval in zip(outputs, found, closed.out_avals, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.name(graph.whole(value, _shape(aval)))], [name]))
        results.append(_tensor(name, aval))
    nodes = _needed(graph.nodes, outputs)
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(array, name) for name, array in graph.constants.items() if name in used]
    made = helper.make_model(
        helper.make_graph(nodes, "encoder", [_tensor(graph.images, images)], results, weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=producer.partition(" ")[0],
        producer_version=producer.partition(" ")[2],
    )
    helper.set_model_props(made, dict(metadata))
    onnx.checker.check_model(made)
    return made


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the outputs depend on."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _tensor(name: str, aval: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _dtype(aval.dtype), _shape(aval))


def _dtype(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _shape(aval: Any) -> tuple[int | str, ...]:
    return tuple(_side(side) for side in aval.shape)


def _side(side: Any) -> int | str:
    if isinstance(side, int | np.integer):
        return int(side)
    if str(side).isidentifier():
        return _BATCH
    raise _unknown(f"an axis of length {side}")  # as in an array of all pixels of all images


def _constant(array: Any) -> _Value:
    array = np.asarray(array)
    return _Value(array, array.shape)


def _run(graph: _Graph, jaxpr: Any, constants: Sequence[_Value], inputs: Sequence[_Value]) -> list[_Value]:
    """Add the nodes of a jaxpr; return its results."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *inputs), strict=True))

    def read(atom: Any) -> _Value:
        return _constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        results = _translate(graph, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _translate(graph: _Graph, equation: Any, inputs: list[_Value]) -> list[_Value]:
    """Add the nodes of one operation; return its results."""
    name, parameters = equation.primitive.name, equation.params
    if name in _INNER:
        inner = parameters[_INNER[name]]
        return _run(graph, inner.jaxpr, [_constant(x) for x in inner.consts], inputs)
    if name == "platform_index":
        return [_constant(np.int32(parameters["platforms"].index(None)))]  # the way for all other platforms
    if name == "cond" and isinstance(inputs[0].content, np.ndarray):
        inner = parameters["branches"][int(inputs[0].content)]
        return _run(graph, inner.jaxpr, [_constant(x) for x in inner.consts], inputs[1:])
    if name in _SAME:
        return inputs[:1]
    if name == "broadcast_in_dim":
        return [_broadcast_in_dim(graph, equation, inputs[0])]
    elementwise = _ELEMENTWISE.get(name)
    if elementwise is None:
        inputs = [graph.whole(x, _shape(atom.aval)) for x, atom in zip(inputs, equation.invars, strict=True)]
    if all(isinstance(x.content, np.ndarray) for x in inputs):
        results = equation.primitive.bind(*(jax.numpy.asarray(x.content) for x in inputs), **parameters)
        return [_constant(x) for x in (results if equation.primitive.multiple_results else [results])]
    if elementwise is not None:
        content = graph.add(elementwise, *inputs) if isinstance(elementwise, str) else elementwise(graph, *inputs)
        return [_Value(content, _common_shape(inputs))]
    if name not in _OTHERS:
        raise _unknown(name)
    [output] = equation.outvars
    return [_Value(_OTHERS[name](graph, equation, *inputs), _shape(output.aval))]


def _unknown(what: str) -> InputError:
    return InputError(f"the network computes {what!r:.100}, which the export to ONNX doesn't know; fix: export into a folder")


def _expect(condition: bool, equation: Any) -> None:
    """Raise InputError where an operation is used in a way that isn't translated."""
    if not condition:
        raise _unknown(f"{equation.primitive.name} of {[str(atom.aval) for atom in equation.invars]}")


def _common_shape(values: Sequence[_Value]) -> tuple[int | str, ...]:
    rank = max(len(x.shape) for x in values)
    padded = [(1,) * (rank - len(x.shape)) + x.shape for x in values]
    return tuple(next((side for side in sides if side != 1), 1) for sides in zip(*padded, strict=True))


def _broadcast_in_dim(graph: _Graph, equation: Any, x: _Value) -> _Value:
    """Put axes of length 1 where the operation has new ones: elementwise operations repeat them, as `whole` does for others."""
    [output] = equation.outvars
    shape: list[int | str] = [1] * len(output.aval.shape)
    for axis, side in zip(equation.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = side
    return _Value(_reshaped(graph, x, shape), tuple(shape))


def _reshaped(graph: _Graph, x: _Value, shape: Sequence[int | str]) -> str | np.ndarray:
    lengths = [-1 if side == _BATCH else int(side) for side in shape]
    if isinstance(x.content, np.ndarray):
        return x.content.reshape(lengths)
    return x.content if x.shape == tuple(shape) else graph.add("Reshape", x, np.array(lengths, np.int64))


def _reshape(graph: _Graph, equation: Any, x: _Value, *_: _Value) -> str | np.ndarray:
    shape = _shape(equation.outvars[0].aval)
    _expect(shape.count(_BATCH) == x.shape.count(_BATCH) == 1, equation)
    return _reshaped(graph, x, shape)


def _convert(graph: _Graph, equation: Any, x: _Value) -> str:
    old, new = equation.invars[0].aval.dtype, equation.params["new_dtype"]
    return graph.name(x) if old == new else graph.add("Cast", x, to=_dtype(new))


def _max(graph: _Graph, x: _Value, y: _Value) -> str:
    """Runtimes join Relu, and not Max, with the convolution before it."""
    for one, other in ((x, y), (y, x)):
        if isinstance(other.content, np.ndarray) and not other.shape and other.content == 0:
            return graph.add("Relu", one)
    return graph.add("Max", x, y)


def _min(graph: _Graph, x: _Value, y: _Value) -> str:
    """As in `_max`, with Clip, whose lower bound is left out."""
    for one, other in ((x, y), (y, x)):
        if isinstance(other.content, np.ndarray) and not other.shape:
            return graph.add("Clip", one, "", other)
    return graph.add("Min", x, y)


def _sub(graph: _Graph, x: _Value, y: _Value) -> str:
    """Runtimes join Add with the convolution before it, and not Sub."""
    if isinstance(y.content, np.ndarray) and y.content.dtype == np.float32:
        return graph.add("Add", x, -y.content)
    return graph.add("Sub", x, y)


def _square(graph: _Graph, x: _Value) -> str:
    return graph.add("Mul", x, x)


def _rsqrt(graph: _Graph, x: _Value) -> str:
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def _erfc(graph: _Graph, x: _Value) -> str:
    return graph.add("Sub", np.ones((), np.float32), graph.add("Erf", x))


def _integer_pow(graph: _Graph, equation: Any, x: _Value) -> str:
    return graph.add("Pow", x, np.array(equation.params["y"], np.float32))


def _transposed(graph: _Graph, x: _Value | str, order: Sequence[int]) -> str | np.ndarray:
    content = x.content if isinstance(x, _Value) else x
    if isinstance(content, np.ndarray):
        return content.transpose(order)
    return graph.add("Transpose", content, perm=[int(axis) for axis in order])


def _transpose(graph: _Graph, equation: Any, x: _Value) -> str | np.ndarray:
    return _transposed(graph, x, equation.params["permutation"])


def _reduce_sum(graph: _Graph, equation: Any, x: _Value) -> str:
    return graph.add("ReduceSum", x, np.array(equation.params["axes"], np.int64), keepdims=0)


def _reduce_max(graph: _Graph, equation: Any, x: _Value) -> str:
    return graph.add("ReduceMax", x, axes=[int(axis) for axis in equation.params["axes"]], keepdims=0)


def _concatenate(graph: _Graph, equation: Any, *inputs: _Value) -> str:
    return graph.add("Concat", *inputs, axis=equation.params["dimension"])


def _slice(graph: _Graph, equation: Any, x: _Value) -> str:
    parameters = equation.params
    axes = [axis for axis, side in enumerate(x.shape) if side != _BATCH]
    _expect(_shape(equation.outvars[0].aval).count(_BATCH) == x.shape.count(_BATCH), equation)  # all images are taken
    strides = parameters["strides"] or [1] * len(x.shape)
    columns = ([int(column[axis]) for axis in axes] for column in (parameters["start_indices"], parameters["limit_indices"]))
    start, limit = (np.array(column, np.int64) for column in columns)
    return graph.add("Slice", x, start, limit, np.array(axes, np.int64), np.array([int(strides[k]) for k in axes], np.int64))


def _gather(graph: _Graph, equation: Any, x: _Value, indices: _Value) -> str:
    """Translate x[:, 3], which is a gather where an axis is symbolic."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = numbers.collapsed_slice_dims
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    is_index = isinstance(indices.content, np.ndarray) and indices.shape == (1,) and not numbers.operand_batching_dims
    _expect(is_index and len(axes) == 1 and axes == numbers.start_index_map and sizes[axes[0]] == 1, equation)
    _expect(all(sizes[axis] == equation.invars[0].aval.shape[axis] for axis in others), equation)
    return graph.add("Gather", x, np.array(int(np.asarray(indices.content)[0]), np.int64), axis=int(axes[0]))


def _pad(graph: _Graph, equation: Any, x: _Value, fill: _Value) -> str:
    before, after, inner = zip(*equation.params["padding_config"], strict=True)
    _expect(not any(inner) and min(*before, *after) >= 0, equation)
    return graph.add("Pad", x, np.array([*before, *after], np.int64), fill)


def _dot_general(graph: _Graph, equation: Any, x: _Value, y: _Value) -> str:
    (x_contracted, y_contracted), (x_batch, y_batch) = equation.params["dimension_numbers"]
    _expect(equation.outvars[0].aval.dtype == equation.invars[0].aval.dtype, equation)
    if not (x_batch or y_batch) and x_contracted[0] == len(x.shape) - 1 and y_contracted == (0,) and len(y.shape) == 2:
        return graph.add("MatMul", x, y)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    of_x = [next(letters) for _ in x.shape]
    of_y = [next(letters) for _ in y.shape]
    for one, other in zip((*x_batch, *x_contracted), (*y_batch, *y_contracted), strict=True):
        of_y[other] = of_x[one]
    kept_x = [of_x[axis] for axis in range(len(of_x)) if axis not in (*x_batch, *x_contracted)]
    kept_y = [of_y[axis] for axis in range(len(of_y)) if axis not in (*y_batch, *y_contracted)]
    result = "".join([*(of_x[axis] for axis in x_batch), *kept_x, *kept_y])
    return graph.add("Einsum", x, y, equation=f"{''.join(of_x)},{''.join(of_y)}->{result}")


def _conv(graph: _Graph, equation: Any, x: _Value, kernel: _Value) -> str | np.ndarray:
    """ONNX has the channels before the pixels: what stands between two convolutions is turned twice, which runtimes undo."""
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    _expect(equation.outvars[0].aval.dtype == equation.invars[0].aval.dtype, equation)
    _expect(parameters["batch_group_count"] == 1 and set(parameters["lhs_dilation"]) == {1}, equation)
    before, after = zip(*parameters["padding"], strict=True)
    _expect(min(*before, *after) >= 0, equation)
    result = graph.add(
        "Conv",
        _transposed(graph, x, numbers.lhs_spec),
        _transposed(graph, kernel, numbers.rhs_spec),
        strides=[int(k) for k in parameters["window_strides"]],
        pads=[int(k) for k in (*before, *after)],
        dilations=[int(k) for k in parameters["rhs_dilation"]],
        group=int(parameters["feature_group_count"]),
    )
    return _transposed(graph, result, [numbers.out_spec.index(axis) for axis in range(len(numbers.out_spec))])


def _max_pool(graph: _Graph, equation: Any, x: _Value) -> str | np.ndarray:
    parameters = equation.params
    window, strides, padding = (parameters[name] for name in ("window_dimensions", "window_strides", "padding"))
    _expect(len(x.shape) == 4 and window[0] == window[3] == strides[0] == strides[3] == 1, equation)
    _expect(set(parameters["base_dilation"]) | set(parameters["window_dilation"]) == {1}, equation)
    _expect(not any((*padding[0], *padding[3])), equation)
    result = graph.add(
        "MaxPool",
        _transposed(graph, x, (0, 3, 1, 2)),
        kernel_shape=[int(k) for k in window[1:3]],
        strides=[int(k) for k in strides[1:3]],
        pads=[int(pad[side]) for side in (0, 1) for pad in padding[1:3]],
    )
    return _transposed(graph, result, (0, 2, 3, 1))


_INNER = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}  # what is a function, and its name there
_SAME = ("copy", "stop_gradient")
_ELEMENTWISE: dict[str, str | Callable[..., str]] = {
    "add": "Add",
    "sub": _sub,
    "mul": "Mul",
    "div": "Div",
    "min": _min,
    "max": _max,
    "neg": "Neg",
    "exp": "Exp",
    "tanh": "Tanh",
    "ge": "GreaterOrEqual",
    "square": _square,
    "rsqrt": _rsqrt,
    "erfc": _erfc,
}
_OTHERS: dict[str, Callable[..., str | np.ndarray]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "convert_element_type": _convert,
    "integer_pow": _integer_pow,
    "transpose": _transpose,
    "reduce_sum": _reduce_sum,
    "reduce_max": _reduce_max,
    "concatenate": _concatenate,
    "slice": _slice,
    "gather": _gather,
    "pad": _pad,
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "reduce_window_max": _max_pool,
}
