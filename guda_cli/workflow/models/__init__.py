"""From a record to a network and back: training, unlearning, drawing, taking over, exporting."""
