from effnet.export.quantization import Operation, kept_operations

OPERATIONS = [
    Operation(name=name, kind=kind, inputs=frozenset(inputs))
    for name, kind, inputs in [
        ("stem", "layer", ()),
        ("stem_gate", "", ["stem"]),
        ("stem_act", "product", ["stem", "stem_gate"]),
        ("pooled", "mean", ["stem_act"]),
        ("reduce", "layer", ["pooled"]),
        ("sigmoid", "", ["reduce"]),
        ("swish", "product", ["reduce", "sigmoid"]),
        ("expand", "layer", ["swish"]),
        ("gate", "", ["expand"]),
        ("scaled", "product", ["stem_act", "gate"]),
        ("project", "layer", ["scaled"]),
        ("final", "mean", ["project"]),
        ("classifier", "layer", ["final"]),
    ]
]


def test_squeeze_and_excitation_ends_where_it_meets_the_features():
    expected = ["pooled", "reduce", "sigmoid", "swish", "expand", "gate", "scaled"]
    assert kept_operations(OPERATIONS, "se") == expected


def test_the_ends_are_the_first_layer_and_the_classifier():
    assert kept_operations(OPERATIONS, "ends") == ["stem", "classifier"]
    assert kept_operations(OPERATIONS, "none") == []
    assert len(kept_operations(OPERATIONS, "ends+se")) == 9
