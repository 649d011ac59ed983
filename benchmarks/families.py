"""The families of models that benchmarks measure, at the sizes of the table of the 2018 code's speed."""

BATCH = 32
MOE = {"name": "moe", "mixtures": 2}
VLAD = {"aggregator": "netvlad", "clusters": {"rgb": 64, "audio": 32}, "hidden": 512}
BAG = {"clusters": {"rgb": 1024, "audio": 128}, "hidden": 1024, "relu": False}
FAMILIES: dict[str, dict] = {
    "average": {"aggregator": "average", "head": "logistic"},
    "dbof": {"aggregator": "dbof", "clusters": 1024, "hidden": 1024, "head": MOE},
    "soft_dbof": {"aggregator": "soft_dbof", **BAG, "head": MOE},
    "gated_dbof": {"aggregator": "gated_dbof", "gated": ["rgb"], **BAG, "head": MOE},
    "netvlad": {**VLAD, "head": MOE},
    "netvlad-gated": {**VLAD, "relu": False, "gating": True, "head": {**MOE, "gating": "probabilities"}},
    "netvlad-light": {**VLAD, "light": True, "head": MOE},
    "netfv": {"aggregator": "netfv", "clusters": {"rgb": 64, "audio": 32}, "hidden": 512, "head": MOE},
    "nextvlad": {
        "aggregator": "nextvlad",
        "clusters": {"rgb": 64, "audio": 32},
        "groups": {"rgb": 8, "audio": 4},
        "hidden": 512,
        "head": "logistic",
    },
    "attention": {"aggregator": "attention", "hidden": {"rgb": 2048, "audio": 256}, "head": "logistic"},
    "lstm": {"aggregator": "lstm", "cells": 512, "layers": 2, "head": "logistic"},
    "bilstm": {"aggregator": "bilstm", "cells": 512, "head": "logistic"},
    "bigru-2018": {"aggregator": "bigru", "cells": 512, "reset": "before", "head": "logistic"},
    "bigru-cudnn": {"aggregator": "bigru", "cells": 512, "reset": "after", "head": "logistic"},
    "branched_gru": {"aggregator": "branched_gru", "cells": {"rgb": 512, "audio": 64}, "head": "logistic"},
}
# Those of 2018 that `graphs_of_2018.py` has in TensorFlow.
IN_TENSORFLOW = ("netvlad", "netvlad-gated", "gated_dbof", "bilstm", "bigru-2018")
