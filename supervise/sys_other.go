//go:build unix && !linux

package supervise

import (
	"os"
	"os/signal"
)

// setDefault leaves Go's handlers in place, which then act as the default does.
func setDefault(signals []os.Signal) { signal.Reset(signals...) }

func noexec(string) bool { return false }
