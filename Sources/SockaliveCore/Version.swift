/// The version that `sockalive --version` prints and the metrics carry.
public let sockaliveVersion = "0.1.0"
