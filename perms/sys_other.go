//go:build unix && !linux

package perms

import (
	"errors"

	"run-task/internal/fsx"
)

const onLinux = false

const capChown, capDacOverride, capFowner, capSetgid, capSetuid = 0, 1, 3, 6, 7

type stat struct {
	fsx.Stat
	mount uint64
}

var unsupported = errors.ErrUnsupported

func lookAt(int, *byte) (stat, error)          { return stat{}, unsupported }
func look(int) (stat, error)                   { return stat{}, unsupported }
func openPath(int, string) (int, error)        { return -1, unsupported }
func openDir(int, string) (int, error)         { return -1, unsupported }
func chown(int, int, int) error                { return unsupported }
func chmodPath(int, uint32) error              { return unsupported }
func mkdir(int, string, uint32) error          { return unsupported }
func readNames(int, []byte) (int, error)       { return 0, unsupported }
func nextName([]byte) (name, rest []byte)      { return nil, nil }
func hasCap(int) bool                          { return false }
func caps() (permitted, effective, inh uint64) { return 0, 0, 0 }
func elevated() bool                           { return false }
func clearCaps() error                         { return unsupported }
func setGroups([]int) error                    { return unsupported }
func setGID(int) error                         { return unsupported }
func setUID(int) error                         { return unsupported }
func clearAmbient() error                      { return unsupported }
func clearKeepCaps() error                     { return unsupported }
func setNoNewPrivs() error                     { return unsupported }
func clearDumpable() error                     { return unsupported }
func dropBound(int) error                      { return unsupported }
func inBound(int) (bool, error)                { return false, unsupported }
func isNoNewPrivs() bool                       { return false }
func getIDs() (uids, gids [3]int)              { return }
func closeRange() error                        { return unsupported }
func isTerminal(int) bool                      { return false }
func isRefused(error) bool                     { return false }
