"""Training data.

`readers` lists the items of a dataset, `sources` those of any folder: an `Item` has the files of
a picture. `taxonomy` gives classes a meaning. On these build, for each kind of training:

- receiver: `render` makes a corpus, `corpus` opens it, `batches` crops it;
- segmenter: `views` crops, `degrade` changes light and noise;
- label prior: `label_maps`;
- the paper's network: `scenes`, `crops`.

`pool` keeps pictures in device memory.
"""
