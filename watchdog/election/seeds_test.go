//go:build !race

package election

const defaultSeeds = 3000
