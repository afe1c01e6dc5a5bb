"""Programs of `torch.export` without what their outputs do not depend on."""

from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind


def without_unused(program: ExportedProgram) -> ExportedProgram:
    """Return a program without the weights that no output depends on, such as those of a head.

    ONNX files never have them; `torch.export` keeps all weights of the network.

    Args:
        program: Its graph is changed in place.
    """
    graph = program.graph_module.graph
    graph.eliminate_dead_code()
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    signature = program.graph_signature
    kept, gone = [], set()
    for spec in signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT or node.users:
            kept.append(spec)
        else:
            gone.add(spec.target)
            graph.erase_node(node)
    signature.input_specs[:] = kept
    program.graph_module.recompile()
    return ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=signature,
        state_dict={name: value for name, value in program.state_dict.items() if name not in gone},
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants={name: value for name, value in program.constants.items() if name not in gone},
        verifiers=program.verifiers,
    )
