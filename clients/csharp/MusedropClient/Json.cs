using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Text;

namespace Musedrop
{
    /// <summary>Just enough JSON, the same on Mono, .NET Framework and .NET: no serialiser is part of them all.</summary>
    internal static class Json
    {
        /// <summary>An object's text, one member a line, with \n as line end on every system.</summary>
        public static string Write(IEnumerable<KeyValuePair<string, object>> members)
        {
            var lines = new List<string>();
            foreach (var member in members)
                if (member.Value != null) lines.Add("  " + Quoted(member.Key) + ": " + Value(member.Value));
            return "{\n" + string.Join(",\n", lines) + "\n}\n";
        }

        static string Value(object value)
        {
            var text = value as string;
            if (text != null) return Quoted(text);
            if (value is double) return ((double)value).ToString("R", CultureInfo.InvariantCulture);
            return Convert.ToString(value, CultureInfo.InvariantCulture);
        }

        static string Quoted(string text)
        {
            var made = new StringBuilder("\"");
            foreach (var c in text)
                if (c == '"' || c == '\\') made.Append('\\').Append(c);
                else if (c < ' ' || c == '\u2028' || c == '\u2029') made.AppendFormat("\\u{0:x4}", (int)c);
                else made.Append(c);
            return made.Append('"').ToString();
        }

        /// <summary>The object in a text. Throws FormatException if there is no whole one.</summary>
        public static Dictionary<string, object> ReadObject(string text)
        {
            var made = new JsonReader(text).Document() as Dictionary<string, object>;
            if (made == null) throw new FormatException("no JSON object");
            return made;
        }
    }

    internal sealed class JsonReader
    {
        const int Deepest = 32;
        readonly string text;
        int at;
        int depth;

        public JsonReader(string text)
        {
            this.text = text;
        }

        public object Document()
        {
            var value = Value();
            Blanks();
            if (at < text.Length) throw Broken();
            return value;
        }

        object Value()
        {
            switch (Next())
            {
                case '{': return Nested(Members);
                case '[': return Nested(Items);
                case '"': return Text();
                case 't': return Word("true", true);
                case 'f': return Word("false", false);
                case 'n': return Word("null", null);
                default: return Number();
            }
        }

        object Nested(Func<object> read)
        {
            if (++depth > Deepest) throw Broken();
            at++;
            var value = read();
            depth--;
            return value;
        }

        object Members()
        {
            var made = new Dictionary<string, object>();
            while (More('}', made.Count))
            {
                if (Next() != '"') throw Broken();
                var key = Text();
                Take(':');
                made[key] = Value();
            }
            return made;
        }

        object Items()
        {
            var made = new List<object>();
            while (More(']', made.Count)) made.Add(Value());
            return made;
        }

        /// <summary>Whether another entry follows; takes the comma before it, or the closing bracket.</summary>
        bool More(char closing, int count)
        {
            if (Next() == closing)
            {
                at++;
                return false;
            }
            if (count > 0) Take(',');
            return true;
        }

        string Text()
        {
            var made = new StringBuilder();
            for (at++; at < text.Length; at++)
            {
                if (text[at] == '"')
                {
                    at++;
                    return made.ToString();
                }
                made.Append(text[at] == '\\' ? Escaped() : text[at]);
            }
            throw Broken();
        }

        char Escaped()
        {
            if (++at >= text.Length) throw Broken();
            var kind = "\"\\/bfnrt".IndexOf(text[at]);
            if (kind >= 0) return "\"\\/\b\f\n\r\t"[kind];
            int code;
            if (text[at] != 'u' || at + 4 >= text.Length) throw Broken();
            if (!int.TryParse(text.Substring(at + 1, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out code)) throw Broken();
            at += 4;
            return (char)code;
        }

        object Word(string word, object value)
        {
            if (string.CompareOrdinal(text, at, word, 0, word.Length) != 0) throw Broken();
            at += word.Length;
            return value;
        }

        object Number()
        {
            var start = at;
            while (at < text.Length && "+-.eE0123456789".IndexOf(text[at]) >= 0) at++;
            var digits = text.Substring(start, at - start);
            long whole;
            double real;
            if (long.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out whole)) return whole;
            if (double.TryParse(digits, NumberStyles.Float, CultureInfo.InvariantCulture, out real)) return real;
            throw Broken();
        }

        char Next()
        {
            Blanks();
            if (at >= text.Length) throw Broken();
            return text[at];
        }

        void Take(char expected)
        {
            if (Next() != expected) throw Broken();
            at++;
        }

        void Blanks()
        {
            while (at < text.Length && " \t\r\n".IndexOf(text[at]) >= 0) at++;
        }

        FormatException Broken()
        {
            return new FormatException("not JSON at character " + at);
        }
    }

    /// <summary>The members of a JSON object, asked for by type; what is absent, null or of another type is the type's empty value.</summary>
    internal sealed class Fields
    {
        public readonly IDictionary<string, object> All;

        public Fields(object value)
        {
            All = value as IDictionary<string, object> ?? new Dictionary<string, object>();
        }

        public string Text(string key)
        {
            return Value(key) as string;
        }

        public string Words(string key)
        {
            return Text(key) ?? "";
        }

        public long Whole(string key)
        {
            return (long)Real(key);
        }

        public double Real(string key)
        {
            var value = Value(key);
            return value is long ? (long)value : value is double ? (double)value : 0;
        }

        public bool Flag(string key)
        {
            return Value(key) as bool? == true;
        }

        public Fields Inner(string key)
        {
            return new Fields(Value(key));
        }

        public IEnumerable<Fields> Rows(string key)
        {
            foreach (var row in Value(key) as IList<object> ?? new List<object>()) yield return new Fields(row);
        }

        public IEnumerable<string> Texts(string key)
        {
            return (Value(key) as IList<object> ?? new List<object>()).OfType<string>();
        }

        public DateTime? Time(string key)
        {
            DateTime time;
            const DateTimeStyles utc = DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal;
            return DateTime.TryParse(Words(key), CultureInfo.InvariantCulture, utc, out time) ? time : (DateTime?)null;
        }

        object Value(string key)
        {
            object value;
            return All.TryGetValue(key, out value) ? value : null;
        }
    }
}
