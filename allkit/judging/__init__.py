"""What others print, split and predict, judged: a paper, a split, a file of predictions."""
