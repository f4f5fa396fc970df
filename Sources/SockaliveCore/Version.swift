/// The version that `sockalive --version` prints and the metrics carry. cron/package.sh reads this line.
public let sockaliveVersion = "0.1.0"
