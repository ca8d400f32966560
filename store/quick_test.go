package store_test

import (
	"context"
	"time"

	"run-task/internal/retry"
)

// quick is a policy whose pauses take no time.
func quick() retry.Policy {
	return retry.Policy{Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
}
