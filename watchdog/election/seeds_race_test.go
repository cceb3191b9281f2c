//go:build race

package election

// The race detector makes everything about eight times slower, and there is no
// concurrency here for it to look at.
const defaultSeeds = 1000
