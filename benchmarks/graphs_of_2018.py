"""The models of 2018 as TensorFlow 1 graphs, which train and predict when they are asked to.

Run by `models.py --tensorflow` in TensorFlow 2.15, in which the 2018 code itself was timed (docs/benchmarks.md). That
code is not here: these graphs are written anew, of the operations that it used, with its names of variables. So topgb
can read their weights, and has to give the same probabilities, which `against.py` checks before it times anything. What
the 2018 code spent besides is left out: to merge the gradients of several GPUs, to parse records, to compute metrics.

Features lie in a variable, so that nothing is fed. A step of training is forward, backward, clipping by variable, Adam
and the moving statistics.
"""

import sys
import time
from typing import Any

import numpy as np
from families import BATCH

from serving import serve

CLASSES, FRAMES, WIDTHS = 3862, 300, {"video": 1024, "audio": 128}
MIXTURES, L2 = 2, 1e-8


def main(name: str, threads: int) -> None:
    """Answer `train`, `infer VIDEOS` with the seconds of a call, and `save FILE` with a file of weights and results."""
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_v2_behavior()
    # The graph of the task asked for last: its session, and what a call of it fetches.
    prepared: dict[tuple[bool, int], tuple[Any, Any]] = {}

    def prepare(training: bool, videos: int) -> tuple[Any, Any]:
        if (training, videos) not in prepared:
            for session, _ in prepared.values():
                session.close()
            prepared.clear()
            tf.reset_default_graph()
            graph = Graph(tf, training)
            features = np.random.default_rng(0).integers(0, 256, (videos, FRAMES, sum(WIDTHS.values())), dtype=np.uint8)
            labels = np.random.default_rng(1).random((videos, CLASSES)) < 3 / CLASSES
            predictions = graph.predictions(name, graph.given(features, "features"), [FRAMES] * videos)
            fetched = graph.step(predictions, graph.given(labels, "labels")) if training else predictions
            settings = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
            session = tf.Session(config=settings)
            session.run(tf.global_variables_initializer())
            prepared[training, videos] = session, fetched
        return prepared[training, videos]

    def answer(task: str) -> dict[str, float]:
        kind, _, argument = task.partition(" ")
        if kind == "save":
            session, fetched = prepare(False, 2)
            variables = tf.trainable_variables() + tf.moving_average_variables() + [tf.global_variables("features")[0]]
            arrays = session.run({variable.op.name: variable for variable in variables})
            np.savez(argument, predictions=session.run(fetched), **arrays)
            return {}
        session, fetched = prepare(kind == "train", int(argument or BATCH))
        began, cpu = time.perf_counter(), time.process_time()
        session.run(fetched)
        return {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    serve({"tensorflow": tensorflow.__version__}, answer)


class Graph:
    """Layers of 2018 in the default graph of `tf`, which is `tensorflow.compat.v1`."""

    def __init__(self, tf, training: bool):
        self.tf, self.training = tf, training

    def given(self, values: np.ndarray, name: str):
        """What a batch holds, as a variable of that name that nothing trains."""
        return self.tf.get_variable(
            name, values.shape, values.dtype, self.tf.constant_initializer(values), trainable=False
        )

    def predictions(self, name: str, stored, counts: list[int]):
        """Probabilities float32 [B, V] of stored features uint8 [B, T, D] by the family `name`."""
        frames = self.tf.cast(stored, self.tf.float32) * (4 / 255) + (4 / 512 - 2)
        frames = self.tf.nn.l2_normalize(frames, 2)
        if name in ("bilstm", "bigru-2018"):
            return self.tf.nn.sigmoid(self.dense(self.recurrent(frames, counts, name), CLASSES, "fully_connected"))
        flat = self.batch_norm(self.tf.reshape(frames, [-1, sum(WIDTHS.values())]), "input_bn")
        video, audio = self.tf.split(flat, list(WIDTHS.values()), 1)
        gated = name == "netvlad-gated"
        if name == "gated_dbof":
            pooled = [self.bag(video, 1024, "video_DBOF", True), self.bag(audio, 128, "audio_DBOF", False)]
            hidden, relu = self.hidden(self.tf.concat(pooled, 1), 1024, 1024, False), False
        else:
            pooled, relu = [self.vlad(video, 64, "video_VLAD"), self.vlad(audio, 32, "audio_VLAD")], not gated
            hidden = self.hidden(self.tf.concat(pooled, 1), 512, 64, relu)
        if gated:
            hidden *= self.tf.sigmoid(self.batch_norm(self.product(hidden, 512, "gating_weights_2"), "gating_bn"))
        probabilities = self.mixture_of_experts(hidden)
        if gated:
            gates = self.batch_norm(self.product(probabilities, CLASSES, "gating_prob_weights"), "gating_prob_bn")
            probabilities *= self.tf.sigmoid(gates)
        return probabilities

    def step(self, predictions, labels):
        """The operation that is one step of training, from predictions [B, V] and labels bool [B, V]."""
        tf = self.tf
        wanted = tf.cast(labels, tf.float32)
        entropy = wanted * tf.log(predictions + 1e-5) + (1 - wanted) * tf.log(1 - predictions + 1e-5)
        losses = tf.losses.get_regularization_losses()
        loss = tf.reduce_mean(-tf.reduce_sum(entropy, 1)) + (tf.add_n(losses) if losses else 0.0)
        optimizer = tf.train.AdamOptimizer(1e-4)
        gradients = [(tf.clip_by_norm(gradient, 1.0), own) for gradient, own in optimizer.compute_gradients(loss)]
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            return optimizer.apply_gradients(gradients)

    def variable(self, name: str, shape: list[int], deviation: float | None = None):
        """A trained variable, which starts normal or at 0."""
        start = self.tf.random_normal_initializer(stddev=deviation) if deviation else self.tf.zeros_initializer()
        return self.tf.get_variable(name, shape, initializer=start)

    def product(self, values, width: int, name: str, deviation: float | None = None):
        """Values [N, C] times a trained matrix: [N, `width`]."""
        features = int(values.shape[1])
        return self.tf.matmul(values, self.variable(name, [features, width], deviation or features**-0.5))

    def dense(self, values, width: int, scope: str, bias: bool = True):
        """slim's fully connected layer, whose weight is penalised."""
        with self.tf.variable_scope(scope):
            weight = self.tf.get_variable(
                "weights",
                [int(values.shape[1]), width],
                initializer=self.tf.glorot_uniform_initializer(),
                regularizer=lambda own: L2 * self.tf.nn.l2_loss(own),
            )
            products = self.tf.matmul(values, weight)
            return self.tf.nn.bias_add(products, self.variable("biases", [width])) if bias else products

    def batch_norm(self, values, scope: str):
        """slim's batch norm of [N, C], which it gives to the fused kernel as [N, 1, 1, C]."""
        tf, width = self.tf, int(values.shape[1])
        with tf.variable_scope(scope):
            gamma = tf.get_variable("gamma", [width], initializer=tf.ones_initializer())
            beta = self.variable("beta", [width])
            keys = [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MOVING_AVERAGE_VARIABLES]
            moving = [
                tf.get_variable(name, [width], initializer=start, trainable=False, collections=keys)
                for name, start in (
                    ("moving_mean", tf.zeros_initializer()),
                    ("moving_variance", tf.ones_initializer()),
                )
            ]
        square = tf.reshape(values, [-1, 1, 1, width])
        given = {} if self.training else {"mean": moving[0], "variance": moving[1]}
        found, *own = tf.nn.fused_batch_norm(square, gamma, beta, epsilon=1e-3, is_training=self.training, **given)
        if self.training:
            for old, new in zip(moving, own, strict=True):
                tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(old, (old - new) * (1 - 0.999)))
        return tf.reshape(found, [-1, width])

    def assignment(self, frames, clusters: int):
        """Soft assignments [B, T, K] of frames [B · T, D]."""
        products = self.batch_norm(self.product(frames, clusters, "cluster_weights"), "cluster_bn")
        return self.tf.reshape(self.tf.nn.softmax(products), [-1, FRAMES, clusters])

    def vlad(self, frames, clusters: int, scope: str):
        """NetVLAD's descriptors [B, D · K] of frames [B · T, D]."""
        tf, width = self.tf, int(frames.shape[1])
        with tf.variable_scope(scope):
            assigned = self.assignment(frames, clusters)
            centres = self.variable("cluster_weights2", [1, width, clusters], width**-0.5)
            offset = tf.reduce_sum(assigned, -2, keepdims=True) * centres
            sums = tf.matmul(tf.transpose(assigned, [0, 2, 1]), tf.reshape(frames, [-1, FRAMES, width]))
            residuals = tf.nn.l2_normalize(tf.transpose(sums, [0, 2, 1]) - offset, 1)
            return tf.nn.l2_normalize(tf.reshape(residuals, [-1, width * clusters]), 1)

    def bag(self, frames, clusters: int, scope: str, gated: bool):
        """The soft, or gated, bag [B, K] of frames [B · T, D]."""
        tf, width = self.tf, int(frames.shape[1])
        with tf.variable_scope(scope):
            assigned = self.assignment(frames, clusters)
            sums = tf.reduce_sum(assigned, 1)
            if gated:
                maxima = tf.nn.l2_normalize(tf.reduce_max(assigned, 1), 1)
                gates = self.product(self.product(maxima, width, "dim_red"), clusters, "cluster_weights_2")
                sums *= tf.sigmoid(self.batch_norm(gates, "cluster_bn_2"))
            return tf.nn.l2_normalize(sums, 1)

    def hidden(self, pooled, width: int, clusters: int, relu: bool):
        """The hidden layer [B, `width`]: with a batch norm and ReLU6, or with a bias."""
        values = self.product(pooled, width, "hidden1_weights", clusters**-0.5)
        if relu:
            return self.tf.nn.relu6(self.batch_norm(values, "hidden1_bn"))
        return values + self.variable("hidden1_biases", [width], 0.01)

    def mixture_of_experts(self, values):
        """Probabilities [B, V] of values [B, C]."""
        tf = self.tf
        gates = self.dense(values, CLASSES * (MIXTURES + 1), "gates", bias=False)
        experts = self.dense(values, CLASSES * MIXTURES, "experts")
        shares = tf.nn.softmax(tf.reshape(gates, [-1, MIXTURES + 1]))
        own = tf.nn.sigmoid(tf.reshape(experts, [-1, MIXTURES]))
        return tf.reshape(tf.reduce_sum(shares[:, :MIXTURES] * own, 1), [-1, CLASSES])

    def recurrent(self, frames, counts: list[int], name: str, cells: int = 512):
        """The last state [B, cells] above a bidirectional layer; an LSTM's is that of the cell."""
        tf, rnn = self.tf, self.tf.nn.rnn_cell
        cell = rnn.BasicLSTMCell if name == "bilstm" else rnn.GRUCell
        both = [rnn.MultiRNNCell([cell(cells // 2)]) for _ in range(2)]
        outputs, _ = tf.nn.bidirectional_dynamic_rnn(*both, frames, sequence_length=counts, dtype=tf.float32)
        above = tf.concat(outputs, 2)
        _, last = tf.nn.dynamic_rnn(rnn.MultiRNNCell([cell(cells)]), above, sequence_length=counts, dtype=tf.float32)
        return last[0].c if name == "bilstm" else last[0]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
