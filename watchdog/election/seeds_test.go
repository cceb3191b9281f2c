//go:build !race

package election

const defaultSeeds = 4000
