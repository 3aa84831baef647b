"""OPT as GALACTICA uses it: sizes, weights, attention over packed examples, loss."""
