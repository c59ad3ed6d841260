"""What each verdict means, in a sentence; docs/verdicts.md says more."""

MEANINGS = {
    "BP101": "What comes back to earlier steps shrinks so fast that the weights hardly learn from them.",
    "BP102": "What comes back to earlier steps grows with every step, so that a few early uses decide the update.",
    "BP103": "Neighbouring states drift apart: beyond some steps a gradient says little about what a change would do.",
    "BP104": "The training cuts the gradient where a good part of it would still have come from further back.",
    "BP105": "Nothing comes back from one step to the one before: the network cannot learn to remember.",
    "BP201": "A parameter gets no gradient from these losses, so it does not learn from them.",
    "BP202": "The uses of a weight pull in different directions, and little is left of them in the sum.",
    "BP203": "Nearly all of the gradient comes from one step; the others hardly count.",
    "BP204": "The gradient is small because the loss is: this is no vanishing gradient.",
    "BP301": "Units stand at the ends of tanh, where its slope passes hardly any gradient.",
    "BP302": "Gates stand fully open or shut, where their own slope passes hardly any gradient.",
    "BP401": "Clipping, and not the learning rate, decides how far most updates go.",
    "BP501": "A number left the range of floats; everything after it is without meaning.",
    "BP502": "The step gradients do not add up to the gradient: one of the two is wrong.",
}
