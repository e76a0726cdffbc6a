package config

func (c Cache) validate(k *Report, path string) {
	if c.Directory == "" {
		k.Add(path+".directory", "is missing")
	}
	if c.StallTimeout <= 0 {
		k.Add(path+".stall_timeout", "must be more than zero")
	}
	if n := c.Abandoned.FinishFromPercent; n < 1 || n > 100 {
		k.Add(path+".abandoned.finish_from_percent", "%d is not between 1 and 100", n)
	}
	if c.Abandoned.Grace <= 0 {
		k.Add(path+".abandoned.grace", "must be more than zero")
	}
	if c.Scrub.Interval < 0 {
		k.Add(path+".scrub.interval", "is negative; 0 is never")
	}
	if c.Scrub.Rate <= 0 {
		k.Add(path+".scrub.rate", "must be more than zero; interval: 0 turns it off")
	}
}
