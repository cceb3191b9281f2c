package pgpool

// ineffective are settings whose feature is not built yet: start-up warns of
// those that a file sets to other than their default.
var ineffective = map[string]string{}
