package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// Tasks outlive whoever starts them, end with Stop, which waits for them, and are not started after
// it.
func TestTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := NewTasks()
		ended := map[string]error{}
		task := func(name string) func(context.Context) {
			return func(ctx context.Context) {
				<-ctx.Done()
				ended[name] = context.Cause(ctx)
			}
		}
		errEnough := errors.New("enough")
		cancel, started := tasks.StartCancellable(task("cancelled"))
		if !started || !tasks.Start(task("other")) {
			t.Fatal("they are not started")
		}
		synctest.Wait()
		if len(ended) > 0 {
			t.Errorf("ended are %v", ended)
		}
		cancel(errEnough)
		synctest.Wait()
		if len(ended) != 1 || ended["cancelled"] != errEnough {
			t.Errorf("after the cancel ended are %v", ended)
		}
		tasks.Stop()
		if ended["other"] != ErrStopped {
			t.Errorf("after Stop ended are %v", ended)
		}
		cancel, started = tasks.StartCancellable(task("late"))
		cancel(nil)
		if started || tasks.Start(task("later")) {
			t.Error("a task is started after Stop")
		}
	})
}
