using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Text;

namespace Musedrop
{
    /// <summary>What a request becomes: names of files, and the text of a job file.</summary>
    internal sealed class JobFile
    {
        const int LongestNameBytes = 90;
        const int LongestSuffix = 16;
        static readonly string[] Reserved = { "CON", "PRN", "AUX", "NUL", "COM", "LPT" };

        public readonly string Id, Name;
        /// <summary>What has to be copied into the inbox: name there -> path.</summary>
        public readonly Dictionary<string, string> Copies = new Dictionary<string, string>();
        readonly DigitalHumanRequest request;
        readonly string inbox, avatar, audio;

        /// <summary>Throws MusedropException for a request that can't become a job.</summary>
        public JobFile(DigitalHumanRequest request, string inbox)
        {
            Check(request);
            this.request = request;
            this.inbox = Path.GetFullPath(inbox);
            Id = request.CacheKey ?? Guid.NewGuid().ToString("N");
            var tag = request.CacheKey == null ? Id.Substring(0, 8) : TagOf(request);
            var stem = SafeName(request.Name ?? Path.GetFileNameWithoutExtension(request.AudioPath));
            Name = request.Name == null ? stem + "-" + tag : stem;
            avatar = request.AvatarImagePath == null ? null : "./" + MediumName(request.AvatarImagePath, stem + "-" + tag + ".avatar");
            audio = "./" + MediumName(request.AudioPath, stem + "-" + tag + ".audio");
        }

        /// <summary>UTF-8 without a byte order mark. The path "./face.jpg" is a file, whatever its suffix; "face" would be a library avatar.</summary>
        public byte[] Text()
        {
            var members = new List<KeyValuePair<string, object>>
            {
                Member("AvatarImagePath", avatar),
                Member("TemplateId", request.TemplateId),
                Member("AudioPath", audio),
                Member("Quality", request.Quality),
                Member("Fps", request.Fps),
                Member("BatchSize", request.BatchSize),
                Member("BboxShift", request.BboxShift),
                Member("Priority", request.Priority),
                Member("CacheKey", Id),
                Member("Engine", request.Engine),
                Member("TimeoutSeconds", request.TimeoutSeconds)
            };
            try
            {
                return new UTF8Encoding(false, true).GetBytes(Json.Write(members));
            }
            catch (EncoderFallbackException bad)
            {
                throw new MusedropException("bad_value", "a text of the request holds half a character", "Send whole characters.", bad);
            }
        }

        static KeyValuePair<string, object> Member(string key, object value)
        {
            return new KeyValuePair<string, object>(key, value is Enum ? value.ToString() : value);
        }

        static void Check(DigitalHumanRequest request)
        {
            if (request == null) throw new ArgumentNullException("request");
            if (request.AvatarImagePath == null && request.TemplateId == null)
                throw new MusedropException("missing_key", "the request names no face", "Set AvatarImagePath or TemplateId.");
            if (request.AvatarImagePath != null && request.TemplateId != null)
                throw new MusedropException("duplicate_key", "the request names two faces", "Set AvatarImagePath or TemplateId, not both.");
            if (request.AudioPath == null)
                throw new MusedropException("missing_key", "the request names no voice", "Set AudioPath.");
            foreach (var path in new[] { request.AvatarImagePath, request.AudioPath })
                if (path != null && !File.Exists(path))
                    throw new MusedropException("missing_media", "there is no file " + path, "Give the path of a file that this program can read.");
        }

        /// <summary>The same request under the same key makes the same bytes; another content makes other names.</summary>
        static string TagOf(DigitalHumanRequest request)
        {
            var parts = new[] { request.AvatarImagePath, request.AudioPath }.Where(path => path != null).Select(Records.DigestOf);
            return Records.DigestOfText(request.CacheKey + "\n" + string.Join("\n", parts)).Substring(0, 8);
        }

        /// <summary>The name in the inbox; a file that lies there already keeps its own.</summary>
        string MediumName(string path, string stem)
        {
            var own = Path.GetFileName(path);
            if (Path.GetFullPath(path) == Path.Combine(inbox, own)) return own;
            var suffix = Path.GetExtension(path);
            var name = stem + (suffix.Length > 1 && suffix.Length <= LongestSuffix ? "." + SafeName(suffix.Substring(1)).ToLowerInvariant() : "");
            Copies[name] = path;
            return name;
        }

        /// <summary>A file name that every system can hold, still readable as `name`; the daemon leaves it as it is.</summary>
        public static string SafeName(string name)
        {
            var clean = new StringBuilder();
            for (int at = 0, wide = 1; at < name.Length; at += wide)
            {
                wide = char.IsSurrogatePair(name, at) ? 2 : 1;
                var refused = "<>:\"/\\|?*".IndexOf(name[at]) >= 0 || !IsPrintable(name, at);
                clean.Append(refused ? "_" : name.Substring(at, wide));
            }
            return NotReserved(Cut(clean.ToString().Normalize(NormalizationForm.FormC)).TrimEnd('.', ' ').TrimStart());
        }

        /// <summary>Cut where no character is split, not even one of several marks.</summary>
        static string Cut(string text)
        {
            var end = 0;
            var elements = StringInfo.GetTextElementEnumerator(text);
            while (elements.MoveNext())
            {
                var next = elements.ElementIndex + elements.GetTextElement().Length;
                if (Encoding.UTF8.GetByteCount(text.Substring(0, next)) > LongestNameBytes) break;
                end = next;
            }
            return text.Substring(0, end);
        }

        static bool IsPrintable(string text, int at)
        {
            switch (CharUnicodeInfo.GetUnicodeCategory(text, at))
            {
                case UnicodeCategory.Control:
                case UnicodeCategory.Format:
                case UnicodeCategory.Surrogate:
                case UnicodeCategory.PrivateUse:
                case UnicodeCategory.OtherNotAssigned:
                case UnicodeCategory.LineSeparator:
                case UnicodeCategory.ParagraphSeparator:
                    return false;
                case UnicodeCategory.SpaceSeparator:
                    return text[at] == ' ';
                default:
                    return true;
            }
        }

        static string NotReserved(string name)
        {
            if (name.Length == 0) return "job";
            if (name[0] == '.' || name[0] == '-') name = "_" + name.Substring(1);
            var device = name.Split('.')[0].ToUpperInvariant();
            var port = device.Length == 4 && char.IsDigit(device[3]) ? device.Substring(0, 3) : device;
            return Reserved.Contains(port) ? "_" + name : name;
        }
    }
}
