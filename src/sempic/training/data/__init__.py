"""What trainings learn from: files found (`readers`, `sources`), what their classes mean
(`taxonomy`), receivers' corpora (`corpus`), crops (`batches`, `views`), the paper's `scenes`."""
