package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"dray/cmd/dray/config"
	"dray/cmd/dray/logbuffer"
)

// TestLoggerHoldsBack: the program's log and the lines of its requests are one, in the order in
// which they were written.
func TestLoggerHoldsBack(t *testing.T) {
	for _, format := range []config.LogFormat{config.LogText, config.LogJSON} {
		var out bytes.Buffer
		log, end := newLogger(format, slog.LevelInfo, &out)
		late := slog.New(logbuffer.Buffered(log))
		late.Info("first")
		if out.Len() > 0 {
			t.Errorf("%s: %q at once", format, &out)
		}
		log.Info("second")
		late.Info("third")
		if logbuffer.Buffered(log).Enabled(context.Background(), slog.LevelDebug) {
			t.Errorf("%s: every level is logged", format)
		}
		end()
		var order []int
		for _, word := range []string{"first", "second", "third"} {
			order = append(order, strings.Index(out.String(), word))
		}
		if order[0] < 0 || order[1] < order[0] || order[2] < order[1] {
			t.Errorf("%s: %s", format, &out)
		}
	}
}
