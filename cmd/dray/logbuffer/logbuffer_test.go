package logbuffer

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// calls is where a log goes to: what each call of Write got.
type calls struct {
	mu   sync.Mutex
	got  []string
	err  error
	wait chan struct{} // nil: none
}

func (c *calls) Write(p []byte) (int, error) {
	if c.wait != nil {
		<-c.wait
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, string(p))
	return len(p), c.err
}

func (c *calls) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.got...)
}

func (c *calls) want(t *testing.T, want ...string) {
	t.Helper()
	if got := c.all(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func put(t *testing.T, w interface{ Write([]byte) (int, error) }, line string) {
	t.Helper()
	if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestLinesAreLateAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &calls{}
		l := &logBuffer{to: to}
		late := bufferedLog{l}
		put(t, late, "1\n")
		put(t, late, "2\n")
		time.Sleep(flushDelay - 1)
		synctest.Wait()
		to.want(t)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		to.want(t, "1\n2\n")
		put(t, late, "3\n")
		put(t, l, "4\n") // what is not late brings with it what was before
		to.want(t, "1\n2\n", "3\n4\n")
		put(t, late, "5\n")
		l.close()
		put(t, late, "6\n")
		put(t, l, "7\n")
		to.want(t, "1\n2\n", "3\n4\n", "5\n", "6\n", "7\n")
	})
}

func TestLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &calls{wait: make(chan struct{})}
		l := &logBuffer{to: to}
		line := strings.Repeat("x", maxBuffered/4-1) + "\n"
		for range 3 {
			put(t, bufferedLog{l}, line)
		}
		done := false
		go func() {
			put(t, bufferedLog{l}, line) // this one fills what may be held back
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("a line was held back by a log that is full")
		}
		close(to.wait)
		synctest.Wait()
		to.want(t, strings.Repeat(line, 4))
		l.close()
		if !done {
			t.Error("the line that was written still waits")
		}
	})
}

func TestLinesStayWhole(t *testing.T) {
	to := &calls{}
	l := &logBuffer{to: to}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				if line := fmt.Sprintf("%d %d %s\n", i, n, strings.Repeat("y", n)); n%5 == 0 {
					put(t, l, line)
				} else {
					put(t, bufferedLog{l}, line)
				}
			}
		})
	}
	wg.Wait()
	l.close()
	next := [8]int{}
	for line := range strings.Lines(strings.Join(to.all(), "")) {
		var i, n int
		var rest string
		_, _ = fmt.Sscanf(line, "%d %d %s", &i, &n, &rest) // an empty rest is none
		if n != next[i] || len(rest) != n {
			t.Fatalf("%q after line %d of %d", line, next[i], i)
		}
		next[i]++
	}
	if next != [8]int{500, 500, 500, 500, 500, 500, 500, 500} {
		t.Errorf("lines are missing: %v", next)
	}
}

// An error is one of the lines that it lost, and no later one pays for it.
func TestLinesAfterAnError(t *testing.T) {
	to := &calls{err: errors.New("no space left")}
	l := &logBuffer{to: to}
	if _, err := l.Write([]byte("1\n")); !errors.Is(err, to.err) {
		t.Errorf("%v", err)
	}
	to.err = nil
	put(t, l, "2\n")
	to.want(t, "1\n", "2\n")
}
