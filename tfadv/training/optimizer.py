"""Adam with a fused update: one TensorFlow kernel per variable."""

import keras
import tensorflow as tf

from tfadv.training.distribution import all_reduce_mean


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with TensorFlow's fused kernel; same arguments and variables.

    Keras' update makes nine passes over a variable's memory; this one makes one. On several
    replicas, it clips and applies the mean of their gradients; Keras clips each replica's gradient
    and applies their sum.

    Attributes:
        rate_scale: multiplies the learning rate; no checkpoint holds it.
    """

    def __init__(self, *args, **kwargs):
        """Creates the optimiser, without its variables."""
        super().__init__(*args, **kwargs)
        # Not tracked, so that checkpoints of Keras' Adam and of this one are interchangeable.
        vars(self)["rate_scale"] = tf.Variable(1.0, trainable=False)

    def apply(self, grads, trainable_variables=None):
        """Updates variables by the mean of the replicas' gradients."""
        super().apply(all_reduce_mean(list(grads)), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Returns the gradients unchanged: `apply` has averaged them."""
        return grads_and_vars

    def update_step(self, gradient, variable, learning_rate):
        """Updates a variable and its moments (Kingma and Ba 2015, end of section 2)."""
        learning_rate = self.rate_scale * tf.cast(learning_rate, tf.float32)
        is_sparse = isinstance(gradient, tf.IndexedSlices)
        is_variant = self.amsgrad or self.gradient_accumulation_steps
        if is_sparse or is_variant or variable.dtype != "float32":
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        value = variable.value if isinstance(variable, keras.Variable) else variable
        tf.raw_ops.ResourceApplyAdam(
            var=value.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )
