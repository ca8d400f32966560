package perms

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"run-task/internal/fail"
)

// capability is a number of capabilities(7).
type capability int

func (c capability) String() string {
	switch c {
	case capChown:
		return "CAP_CHOWN"
	case capDacOverride:
		return "CAP_DAC_OVERRIDE"
	case capFowner:
		return "CAP_FOWNER"
	case capSetgid:
		return "CAP_SETGID"
	case capSetuid:
		return "CAP_SETUID"
	}
	return fmt.Sprintf("capability %d", int(c))
}

// refusal is an error and the capability that might have spared us it.
type refusal struct {
	needs capability
	error
}

func (r *refusal) Unwrap() error { return r.error }

func needs(c capability, err error) error {
	if err == nil {
		return nil
	}
	return &refusal{c, err}
}

// explain says what a failed change of ownership means to the user. doing is what was tried, as in `own "/builds"`.
func explain(err error, doing string, uid, gid int) error {
	var known *fail.Error
	var r *refusal
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case refused && errors.As(err, &r) && !hasCap(int(r.needs)):
		return fail.Errorf(fail.OS, "%s: %w: %v is missing", doing, err, r.needs).
			WithHint("start the container as root with --cap-add CHOWN --cap-add FOWNER --cap-add DAC_OVERRIDE, or with the files' owner as its user")
	case errors.Is(err, unix.EINVAL) && errors.As(err, &r) && r.needs == capChown:
		return fail.Errorf(fail.OS, "%s: %w: uid %d or gid %d is not mapped in this user namespace", doing, err, uid, gid).
			WithHint("map it, or run as a user that is mapped")
	}
	return fail.Errorf(fail.IO, "%s: %w", doing, err)
}
