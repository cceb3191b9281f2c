package main

// unbuiltTools are names of the original this program answers to without
// having the feature: they say so, rather than be a command not found.
func unbuiltTools() []*tool {
	var all []*tool
	for _, u := range []struct{ name, what string }{
		{"watchdog_setup", "the maker of watchdog test clusters"},
	} {
		all = append(all, &tool{
			name: u.name,
			first: func(t *call) (int, bool) {
				t.errorf("%s: %s is not built into pgpool-go %s yet", u.name, u.what, version)
				return 1, true
			},
		})
	}
	return all
}
