package config

func (c Cache) validate(k *Report, path string) {
	if c.Directory == "" {
		k.Add(path+".directory", "is missing")
	}
	positive(k, path+".stall_timeout", c.StallTimeout)
	k.between(path+".abandoned.finish_from_percent", c.Abandoned.FinishFromPercent, 1, 100)
	positive(k, path+".abandoned.grace", c.Abandoned.Grace)
	if c.Scrub.Interval < 0 {
		k.Add(path+".scrub.interval", "is negative; use 0 to switch it off")
	}
	if c.Scrub.Rate <= 0 {
		k.Add(path+".scrub.rate", "must be more than zero; to switch scrubbing off, set interval: 0")
	}
}
