package redis

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A reply is refused as soon as it announces or has too much, however it arrives. Sound replies go
// through, one after the other.
func TestReplies(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		ok   bool
	}{
		"simple":             {"+OK\r\n:12\r\n-ERR no\r\n_\r\n#t\r\n,1.5\r\n(123\r\n", true},
		"string":             {"$5\r\nhello\r\n$0\r\n\r\n$-1\r\n", true},
		"string with lines":  {"$11\r\n*999999999\n\r\n+OK\r\n", true},
		"array":              {"*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n*-1\r\n*0\r\n", true},
		"map and attribute":  {"%1\r\n+a\r\n:1\r\n|1\r\n+a\r\n:1\r\n+OK\r\n>2\r\n+a\r\n+b\r\n~0\r\n", true},
		"many replies":       {strings.Repeat("*2\r\n+a\r\n+b\r\n", 100_000), true},
		"large strings":      {strings.Repeat("$8388608\r\n"+strings.Repeat("x", 8<<20)+"\r\n", 6), true},
		"too many values":    {"*300000000\r\n", false},
		"too many pairs":     {"%60000\r\n", false},
		"too many below":     {strings.Repeat("*99999\r\n", 2), false},
		"deep":               {strings.Repeat("*1\r\n", 100), true},
		"too deep":           {strings.Repeat("*1\r\n", maxValues+1), false},
		"too long a string":  {"$8388609\r\n", false},
		"too long an error":  {"!99999999999999999999\r\n", false},
		"a negative length":  {"*-2\r\n", false},
		"no length":          {"*?\r\n", false},
		"a line without end": {"+" + strings.Repeat("x", maxLine+1), false},
		"too long a reply":   {"*5\r\n" + strings.Repeat("$8388608\r\n"+strings.Repeat("x", 8<<20)+"\r\n", 5), false},
		"another protocol":   {"HTTP/1.1 400 Bad Request\r\n\r\n", true}, // go-redis refuses it
		"half a header":      {"*300000000", true},
	} {
		for _, step := range []int{1 << 20, 7} {
			if len(tc.text) > 1<<20 && step == 7 {
				continue
			}
			var r replies
			var err error
			for rest := tc.text; rest != "" && err == nil; {
				n := min(step, len(rest))
				err, rest = r.scan([]byte(rest[:n])), rest[n:]
			}
			if (err == nil) != tc.ok {
				t.Errorf("%s, by %d bytes: %v", name, step, err)
			}
			if cap(r.line) > 2*maxLine+step {
				t.Errorf("%s: a line takes %d bytes", name, cap(r.line))
			}
		}
	}
}

// No reply on the port of Redis makes the store take much memory, whatever program sends it.
func TestGarbageTakesNoMemory(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 4096)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write([]byte("*90000000\r\n")); err != nil {
						return
					}
				}
			})
		}
	})
	defer all.Wait()
	defer func() { _ = l.Close() }()
	for _, scheme := range []string{"redis://", "redis+cluster://"} {
		s, err := Open(Options{URL: scheme + l.Addr().String(), Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 3 {
			if _, err := s.Get(context.Background(), "key"); err == nil {
				t.Error("garbage is a value")
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: %d MB were taken", scheme, n>>20)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The verdict on a reply does not depend on the parts in which it arrives. A reply beyond the
// bounds is not read to its end.
func FuzzReplies(f *testing.F) {
	f.Add("*2\r\n$3\r\nabc\r\n%1\r\n+a\r\n:1\r\n", 3)
	f.Add("*99999\r\n*99999\r\n$8388608\r\n", 1)
	f.Fuzz(func(t *testing.T, text string, step int) {
		var whole, parts replies
		first := whole.scan([]byte(text))
		for rest := text; rest != ""; {
			n := min(max(1, step), len(rest))
			_ = parts.scan([]byte(rest[:n]))
			rest = rest[n:]
		}
		if (first == nil) != (parts.err == nil) {
			t.Errorf("%q: %v at once, %v by %d", text, first, parts.err, step)
		}
		if first == nil && (whole.values < 0 || whole.values > maxValues || whole.skip < 0 || whole.skip > maxString+2 || whole.size > maxReply) {
			t.Errorf("%q: %+v", text, whole)
		}
	})
}
