//go:build race

package election

import (
	"os/exec"
	"testing"
)

// The race detector makes the simulation eight times slower, and there is no
// concurrency in it to be looked at: it gets a few seeds here, and all of them
// in a test that is built without.
const defaultSeeds = 100

func TestSimulationInFull(t *testing.T) {
	if testing.Short() || *seeds != 0 || *oneSeed != 0 {
		t.Skip("asked for something else")
	}
	out, err := exec.Command("go", "test", "-race=false", "-run", "^(TestSimulation|TestMutantsAreCaught)$", "-v", ".").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
