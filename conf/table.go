package conf

import "slices"

// table is every parameter, in the order of the sample file.
var table = slices.Concat(tableMain, tableCluster, tableWatchdog)
