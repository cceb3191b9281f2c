package conf

import "testing"

func TestUsersFilesLoad(t *testing.T) {
	for _, f := range []string{"debian", "guide", "tutorial"} {
		t.Run(f, func(t *testing.T) {
			c, notices, err := Load(Paths{Conf: "../testdata/conf/" + f + ".pgpool.conf"})
			for _, n := range notices {
				t.Log(n)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", *c)
		})
	}
}
