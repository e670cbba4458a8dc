"""What is minimised: cross-entropy with the labels, distillation from a teacher, or a mixture."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over (batch, classes) logits and (batch,) labels, in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def distillation(
    logits: jax.Array, teacher_logits: jax.Array, temperature: jax.typing.ArrayLike
) -> jax.Array:
    r"""How far the student's distribution is from the teacher's, in nats.

    .. math::
      T^2 \operatorname{KL}(\operatorname{softmax}(t / T) \| \operatorname{softmax}(s / T))

    Args:
      logits: (batch, classes) of the student, s.
      teacher_logits: (batch, classes) of the teacher, t; no gradient flows there.
      temperature: T > 0. The factor T^2 keeps the gradient's size.

    Returns:
      Mean over the batch.

    Source: Hinton et al. 2015; with T = 1 the distributional loss of ReActNet (Liu et al. 2020).
    """
    student = jax.nn.log_softmax(logits / temperature)
    teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits) / temperature)
    divergence = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return jnp.mean(divergence) * temperature**2
