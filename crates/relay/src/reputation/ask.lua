-- One question about strangers, as one step. The rules are those of local.rs; the times are the gateway's.
-- ARGV: question, now, then its own numbers. Milliseconds. Answer: -1 yes, -2 no, from 0 on the milliseconds to wait.
-- A value is decimal numbers with spaces between. What it says about time counts; the server's own expiry only cleans up.
local question, now = ARGV[1], tonumber(ARGV[2])
local YES, NO = -1, -2

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

if question == 'allows' or question == 'take' then
  local count, limit, window = KEYS[1], tonumber(ARGV[3]), tonumber(ARGV[4])
  local known = numbers(count) or {now, 0, 0}
  local began, this, before = known[1], known[2], known[3]
  local gone = now - began
  if gone < 0 or gone >= 2 * window then
    began, this, before = now, 0, 0
  elseif gone >= window then
    began, this, before = began + window, 0, this
  end
  if this + before * (1 - (now - began) / window) >= limit then return NO end
  if question == 'take' then put(count, 2 * window, began, this + 1, before) end
  return YES
end

local waiting, passed, client = KEYS[1], KEYS[2], KEYS[3]
local keep, retry, enough = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function pass() put(passed, keep, now + keep) end

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
  local known = numbers(passed)
  if known and known[1] > now then
    pass()
    return true
  end
  return false
end

if question == 'prove' then
  set_proofs(enough)
  return YES
elseif question == 'learn' then
  pass()
  return YES
elseif question == 'knows' then
  return knows() and YES or NO
elseif question == 'see' then
  local delay = tonumber(ARGV[6])
  if knows() then return YES end
  local since = (numbers(waiting) or {})[1]
  local left = delay
  if since and since <= now and now < since + retry then
    left = math.max(0, since + delay - now)
  else
    put(waiting, retry, now)
  end
  if left > 0 then return left end
  pass()
  set_proofs(proofs() + 1)
  return YES
end
return redis.error_reply('unknown question ' .. question)
