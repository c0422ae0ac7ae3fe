-- One question about strangers, as one step. The rules are those of local.rs; the times are the gateway's.
-- ARGV: question, now, what clocks may differ by, then its own. Milliseconds. Answer: a word and its numbers: 1 yes; 2 no;
-- 3 and the milliseconds to wait; 4, which count is over its limit (from 0), the limit, the milliseconds to wait; 5 and wrong
-- passwords with this one; 6 and the milliseconds until one may be tried.
-- A value is decimal numbers with spaces between. What it says about time counts; the server's own expiry only cleans up.
local question, now, slack = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local YES, NO, WAIT, OVER, ATTEMPTED, THROTTLED = 1, 2, 3, 4, 5, 6

local function put(key, life, ...)
  local words = {}
  for index, number in ipairs({...}) do words[index] = string.format('%.0f', number) end
  redis.call('SET', key, table.concat(words, ' '), 'PX', string.format('%.0f', life))
end

local function numbers(key)
  local text = redis.call('GET', key)
  if not text then return nil end
  local list = {}
  for word in string.gmatch(text, '%d+') do list[#list + 1] = tonumber(word) end
  return list
end

local function holds(key)
  local known = numbers(key)
  return known ~= nil and known[1] > now
end

local function hold(key, life) put(key, life, now + life) end

-- Messages of two neighbouring hours: since when, of this one, of the one before.
local function messages(key, hour)
  local known = numbers(key) or {now, 0, 0}
  local gone = now - known[1]
  if gone < -slack or gone >= 2 * hour then return {now, 0, 0} end
  if gone >= hour then return {known[1] + hour, 0, known[2]} end
  return known
end

local function count(key, hour)
  local known = messages(key, hour)
  put(key, math.max(1, known[1] + 2 * hour - now), known[1], known[2] + 1, known[3])
end

if question == 'weigh' then
  local hour, factor, proven = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
  local counts = tonumber(ARGV[7])
  for index = counts + 1, #KEYS do proven = proven or holds(KEYS[index]) end
  for index = 1, counts do
    local limit, how = tonumber(ARGV[6 + 2 * index]), ARGV[7 + 2 * index]
    if proven then limit = math.min(limit * factor, 4294967295) end
    local most = limit
    if how == 'taken' then most = math.min(limit + 1, 4294967295) end
    local known = messages(KEYS[index], hour)
    local began, this, before = known[1], known[2], known[3]
    if this + before * (1 - math.min(math.max(0, now - began) / hour, 1)) >= most then
      local hours
      if this < most then hours = 1 - (most - this) / before else hours = 2 - most / this end
      local wait = began + math.ceil(hour * math.min(math.max(hours, 0), 2)) + 1000 - now
      return {OVER, index - 1, limit, math.max(0, wait)}
    end
  end
  for index = 1, counts do
    if ARGV[7 + 2 * index] == 'take' then count(KEYS[index], hour) end
  end
  return {YES}
end

if question == 'accepted' then
  local hour, keep, recipients = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  for index = 1, recipients do count(KEYS[index], hour) end
  local enough, age, all = tonumber(ARGV[7]), tonumber(ARGV[8]), true
  local domain = KEYS[recipients + 1]
  for proof = 1, (#KEYS - recipients - 1) / 2 do
    local beginning, history = KEYS[recipients + 2 * proof], KEYS[recipients + 2 * proof + 1]
    local begun = numbers(beginning)
    if not begun or begun[1] > now + slack then begun = {now, 0} end
    local first, number = begun[1], begun[2] + 1
    if ARGV[8 + proof] == '1' or holds(history) or (number >= enough and math.max(0, now - first) >= age) then
      hold(history, keep)
      hold(domain, keep)
    else
      put(beginning, keep, first, number)
      all = false
    end
  end
  return {all and YES or NO}
end

if question == 'attempt' or question == 'right' or question == 'unjudged' then
  local forgiven, remembered, of_known = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
  local open, unknown, from, to = KEYS[#KEYS], 1, of_known + 1, #KEYS - 2
  if question == 'attempt' then
    if ARGV[6] == '1' or holds(KEYS[1]) then unknown = 0 end
  else
    -- It is taken back once, where it was counted; what was not counted here is not.
    local counted = numbers(open)
    if counted and counted[2] > now then unknown = counted[1] else unknown, to = 1, of_known end
    if counted then put(open, 1, unknown, 0) end
  end
  if unknown == 0 then from, to = 1, of_known end

  -- Wrong passwords that count, and when the next of them is forgiven.
  local function wrong(key)
    local known = numbers(key)
    if not known or known[2] > now + forgiven + slack then return {0, now + forgiven} end
    local over = math.max(0, math.floor((now - known[2]) / forgiven) + 1)
    if over >= known[1] then return {0, now + forgiven} end
    return {known[1] - over, known[2] + over * forgiven}
  end

  if question == 'attempt' then
    for index = from, to do
      local known, most = wrong(KEYS[1 + index]), tonumber(ARGV[7 + index])
      if known[1] >= most then
        return {THROTTLED, math.max(0, known[2] - now) + (known[1] - most) * forgiven}
      end
    end
    local first
    for index = from, to do
      local known = wrong(KEYS[1 + index])
      local number = known[1] + 1
      put(KEYS[1 + index], known[2] + number * forgiven - now, number, known[2])
      first = first or number
    end
    put(open, forgiven, unknown, now + forgiven)
    return {ATTEMPTED, first}
  end
  for index = from, to do
    local known = wrong(KEYS[1 + index])
    if known[1] > 0 then
      put(KEYS[1 + index], known[2] + known[1] * forgiven - now, known[1] - 1, known[2])
    end
  end
  if question == 'right' then hold(KEYS[1], remembered) end
  return {YES}
end

local waiting, passed, client = KEYS[1], KEYS[2], KEYS[3]
local keep, retry, enough = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function pass() hold(passed, keep) end

local function proofs()
  local known = numbers(client)
  if known and known[2] > now then return known[1] end
  return 0
end

local function set_proofs(number) put(client, keep, number, now + keep) end

local function knows()
  local number = proofs()
  if number >= enough then
    set_proofs(number)
    return true
  end
  if holds(passed) then
    pass()
    return true
  end
  return false
end

if question == 'prove' then
  set_proofs(enough)
  return {YES}
elseif question == 'learn' then
  pass()
  return {YES}
elseif question == 'knows' then
  return {knows() and YES or NO}
elseif question == 'see' then
  local delay = tonumber(ARGV[7])
  if knows() then return {YES} end
  local since = (numbers(waiting) or {})[1]
  local left = delay
  if since and since <= now and now < since + retry then
    left = math.max(0, since + delay - now)
  else
    put(waiting, retry, now)
  end
  if left > 0 then return {WAIT, left} end
  pass()
  set_proofs(proofs() + 1)
  return {YES}
end
return redis.error_reply('unknown question ' .. question)
