package zone

import "time"

// Wait changes how long the question may take, for tests.
func Wait(long time.Duration) { patience = long }
