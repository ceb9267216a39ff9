using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Text;

namespace Musedrop
{
    /// <summary>A minimal JSON reader and writer: Mono, .NET Framework and .NET have no common serialiser.</summary>
    internal static class Json
    {
        /// <summary>Returns an object as text, one member per line, with \n as line end on every system.</summary>
        public static string Write(IEnumerable<KeyValuePair<string, object>> members)
        {
            var lines = new List<string>();
            foreach (var member in members)
                if (member.Value != null) lines.Add("  " + Quote(member.Key) + ": " + Format(member.Value));
            return "{\n" + string.Join(",\n", lines) + "\n}\n";
        }

        static string Format(object value)
        {
            var text = value as string;
            if (text != null) return Quote(text);
            var list = value as IEnumerable<IEnumerable<KeyValuePair<string, object>>>;
            if (list != null) return "[" + string.Join(", ", list.Select(FormatObject)) + "]";
            var members = value as IEnumerable<KeyValuePair<string, object>>;
            if (members != null) return FormatObject(members);
            var items = value as IEnumerable;
            if (items != null) return "[" + string.Join(", ", items.Cast<object>().Select(Format)) + "]";
            if (value is bool) return (bool)value ? "true" : "false";
            if (value is double) return ((double)value).ToString("R", CultureInfo.InvariantCulture);
            return Convert.ToString(value, CultureInfo.InvariantCulture);
        }

        static string FormatObject(IEnumerable<KeyValuePair<string, object>> members)
        {
            var given = members.Where(member => member.Value != null);
            return "{" + string.Join(", ", given.Select(member => Quote(member.Key) + ": " + Format(member.Value))) + "}";
        }

        static string Quote(string text)
        {
            var made = new StringBuilder("\"");
            foreach (var c in text)
                if (c == '"' || c == '\\') made.Append('\\').Append(c);
                else if (c < ' ' || c == '\u2028' || c == '\u2029') made.AppendFormat("\\u{0:x4}", (int)c);
                else made.Append(c);
            return made.Append('"').ToString();
        }

        /// <summary>Returns the object in a text. Throws FormatException.</summary>
        public static Dictionary<string, object> ReadObject(string text)
        {
            var made = new JsonReader(text).ReadDocument() as Dictionary<string, object>;
            if (made == null) throw new FormatException("no JSON object");
            return made;
        }
    }

    internal sealed class JsonReader
    {
        const int MaxDepth = 32;
        readonly string text;
        int at;
        int depth;

        public JsonReader(string text)
        {
            this.text = text;
        }

        public object ReadDocument()
        {
            var value = ReadValue();
            SkipBlanks();
            if (at < text.Length) throw CreateError();
            return value;
        }

        object ReadValue()
        {
            switch (PeekToken())
            {
                case '{': return ReadNested(ReadMembers);
                case '[': return ReadNested(ReadItems);
                case '"': return ReadText();
                case 't': return ReadWord("true", true);
                case 'f': return ReadWord("false", false);
                case 'n': return ReadWord("null", null);
                default: return ReadNumber();
            }
        }

        object ReadNested(Func<object> read)
        {
            if (++depth > MaxDepth) throw CreateError();
            at++;
            var value = read();
            depth--;
            return value;
        }

        object ReadMembers()
        {
            var made = new Dictionary<string, object>();
            while (TryAdvance('}', made.Count))
            {
                if (PeekToken() != '"') throw CreateError();
                var key = ReadText();
                Expect(':');
                made[key] = ReadValue();
            }
            return made;
        }

        object ReadItems()
        {
            var made = new List<object>();
            while (TryAdvance(']', made.Count)) made.Add(ReadValue());
            return made;
        }

        /// <summary>Reads the comma before the next entry, or the closing bracket; returns false for the bracket.</summary>
        bool TryAdvance(char closing, int count)
        {
            if (PeekToken() == closing)
            {
                at++;
                return false;
            }
            if (count > 0) Expect(',');
            return true;
        }

        string ReadText()
        {
            var made = new StringBuilder();
            for (at++; at < text.Length; at++)
            {
                if (text[at] == '"')
                {
                    at++;
                    return made.ToString();
                }
                made.Append(text[at] == '\\' ? ReadEscape() : text[at]);
            }
            throw CreateError();
        }

        char ReadEscape()
        {
            if (++at >= text.Length) throw CreateError();
            var kind = "\"\\/bfnrt".IndexOf(text[at]);
            if (kind >= 0) return "\"\\/\b\f\n\r\t"[kind];
            int code;
            if (text[at] != 'u' || at + 4 >= text.Length) throw CreateError();
            if (!int.TryParse(text.Substring(at + 1, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out code)) throw CreateError();
            at += 4;
            return (char)code;
        }

        object ReadWord(string word, object value)
        {
            if (string.CompareOrdinal(text, at, word, 0, word.Length) != 0) throw CreateError();
            at += word.Length;
            return value;
        }

        object ReadNumber()
        {
            var start = at;
            while (at < text.Length && "+-.eE0123456789".IndexOf(text[at]) >= 0) at++;
            var digits = text.Substring(start, at - start);
            long whole;
            double real;
            if (long.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out whole)) return whole;
            if (double.TryParse(digits, NumberStyles.Float, CultureInfo.InvariantCulture, out real)) return real;
            throw CreateError();
        }

        char PeekToken()
        {
            SkipBlanks();
            if (at >= text.Length) throw CreateError();
            return text[at];
        }

        void Expect(char expected)
        {
            if (PeekToken() != expected) throw CreateError();
            at++;
        }

        void SkipBlanks()
        {
            while (at < text.Length && " \t\r\n".IndexOf(text[at]) >= 0) at++;
        }

        FormatException CreateError()
        {
            return new FormatException("not JSON at character " + at);
        }
    }

    /// <summary>The members of a JSON object, asked for by type; a member that is absent, null or of another type is the empty value.</summary>
    internal sealed class JsonFields
    {
        public readonly IDictionary<string, object> All;

        public JsonFields(object value)
        {
            All = value as IDictionary<string, object> ?? new Dictionary<string, object>();
        }

        public string GetString(string key)
        {
            return Find(key) as string;
        }

        public string GetStringOrEmpty(string key)
        {
            return GetString(key) ?? "";
        }

        public long GetLong(string key)
        {
            return (long)GetDouble(key);
        }

        public double GetDouble(string key)
        {
            var value = Find(key);
            return value is long ? (long)value : value is double ? (double)value : 0;
        }

        public bool GetBool(string key)
        {
            return Find(key) as bool? == true;
        }

        public JsonFields GetObject(string key)
        {
            return new JsonFields(Find(key));
        }

        public IEnumerable<JsonFields> GetObjects(string key)
        {
            foreach (var row in Find(key) as IList<object> ?? new List<object>()) yield return new JsonFields(row);
        }

        public IEnumerable<string> GetStrings(string key)
        {
            return (Find(key) as IList<object> ?? new List<object>()).OfType<string>();
        }

        public DateTime? GetTime(string key)
        {
            DateTime time;
            const DateTimeStyles utc = DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal;
            return DateTime.TryParse(GetStringOrEmpty(key), CultureInfo.InvariantCulture, utc, out time) ? time : (DateTime?)null;
        }

        object Find(string key)
        {
            object value;
            return All.TryGetValue(key, out value) ? value : null;
        }
    }
}
