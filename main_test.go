package main

import (
	"slices"
	"testing"

	"run-task/internal/task"
)

// Root's work comes first, the drop is its end, and nothing that reads other people's bytes stands before it.
func TestTheOrderOfTheSteps(t *testing.T) {
	names := func(j job) (names []string) {
		for _, s := range j.steps() {
			names = append(names, s.name)
		}
		return names
	}
	want := []string{"status", "cache", "perms", "perms", "status", "vcs", "export", "cache", "copy", "exec"}
	if got := names(job{Task: &task.Task{}}); !slices.Equal(got, want) {
		t.Errorf("the steps are %q, want %q", got, want)
	}
	if got := names(job{Task: &task.Task{Install: "/x"}}); !slices.Equal(got, []string{"install"}) {
		t.Errorf("an installation does %q", got)
	}
	if got := names(job{Task: &task.Task{Store: &task.StoreJob{}}}); !slices.Equal(got, []string{"perms", "perms", "store"}) {
		t.Errorf("work on a store does %q", got)
	}
	if got := names(job{Task: &task.Task{CacheJob: &task.CacheJob{}}}); !slices.Equal(got, []string{"perms", "perms", "cache"}) {
		t.Errorf("work on archives does %q", got)
	}
}
