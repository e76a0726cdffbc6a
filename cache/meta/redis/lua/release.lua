-- KEYS are leases; ARGV has the generation of each.
for i, key in ipairs(KEYS) do
	if redis.call('HGET', key, 'g') == ARGV[i] then redis.call('DEL', key) end
end
return 1
