"""Values of labels and identities that stand for something unknown; TensorFlow is not needed."""

UNKNOWN = 255  # a label that is not known
INVALID = 254  # a label other than 0 and 1; reading a batch with such a label fails
# The identity of an unknown person; known identities are 0 or more. Each image with this identity
# counts as a person of its own (`tfadv.evaluation.identities` numbers persons so).
UNKNOWN_IDENTITY = -1
