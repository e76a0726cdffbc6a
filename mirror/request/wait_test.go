package request

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitBeginsLater checks when the context of an answer ends for a wait that begins some time
// after WithTimeout, and why.
func TestWaitBeginsLater(t *testing.T) {
	const bound = 10 * time.Second
	for name, test := range map[string]struct {
		before func(*Request) // before anything waits
		after  func(*Request) // while something waits
		lasts  time.Duration  // from the call of WithTimeout on; 0 means longer than a minute
		cause  error
	}{
		"at once":       {lasts: bound, cause: errTimeout},
		"in time":       {before: func(*Request) { time.Sleep(3 * time.Second) }, lasts: bound, cause: errTimeout},
		"too late":      {before: func(*Request) { time.Sleep(bound + time.Second) }, lasts: bound + time.Second, cause: errTimeout},
		"lifted before": {before: (*Request).StopTimeout},
		"lifted":        {after: (*Request).StopTimeout},
		"closed before": {before: func(x *Request) { time.Sleep(time.Second); x.Close() }, lasts: time.Second, cause: context.Canceled},
		"closed":        {after: func(x *Request) { time.Sleep(time.Second); x.Close() }, lasts: time.Second, cause: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, leave := context.WithCancelCause(t.Context())
				x := &Request{R: httptest.NewRequestWithContext(ctx, "GET", "/v2/", http.NoBody)}
				defer x.Close()
				start := time.Now()
				bounded := x.WithTimeout(bound)
				if test.before != nil {
					test.before(x)
				}
				child, cancel := context.WithCancel(bounded) // waits
				defer cancel()
				if test.after != nil {
					test.after(x)
				}
				select {
				case <-child.Done():
					if took := time.Since(start); took != test.lasts || context.Cause(bounded) != test.cause || context.Cause(child) != test.cause || bounded.Err() == nil {
						t.Errorf("ended after %v: %v, %v", took, context.Cause(bounded), context.Cause(child))
					}
				case <-time.After(time.Minute):
					if test.lasts > 0 || bounded.Err() != nil {
						t.Errorf("no end after a minute: %v", bounded.Err())
					}
				}
				left := errors.New("left")
				leave(left)
				<-child.Done()
				if test.lasts == 0 && context.Cause(child) != left {
					t.Errorf("the client left: %v", context.Cause(child))
				}
			})
		})
	}
}
