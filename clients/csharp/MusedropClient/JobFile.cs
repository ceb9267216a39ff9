using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Text;

namespace Musedrop
{
    /// <summary>The job of a request: the names of its files, and the text of the job file.</summary>
    internal sealed class JobFile
    {
        const int MaxNameBytes = 90;
        const int MaxSuffixLength = 16;
        static readonly string[] Reserved = { "CON", "PRN", "AUX", "NUL", "COM", "LPT" };

        public readonly string Id, Name;
        /// <summary>The files to copy into the inbox: name there -> path.</summary>
        public readonly Dictionary<string, string> Copies = new Dictionary<string, string>();
        readonly DigitalHumanRequest request;
        readonly string inbox, avatar, audio, soundtrack, background;
        readonly List<IEnumerable<KeyValuePair<string, object>>> voices;

        /// <summary>Throws MusedropException for an invalid request.</summary>
        public JobFile(DigitalHumanRequest request, string inbox)
        {
            Check(request);
            this.request = request;
            this.inbox = Path.GetFullPath(inbox);
            Id = request.CacheKey ?? Guid.NewGuid().ToString("N");
            var tag = request.CacheKey == null ? Id.Substring(0, 8) : ComputeTag(request);
            var stem = MakeSafeName(request.Name ?? Path.GetFileNameWithoutExtension(request.AudioPath ?? request.Voices[0].AudioPath));
            Name = request.Name == null ? stem + "-" + tag : stem;
            avatar = request.AvatarImagePath == null ? null : "./" + AddCopy(request.AvatarImagePath, tag + ".avatar");
            audio = request.AudioPath == null ? null : "./" + AddCopy(request.AudioPath, tag + ".audio");
            voices = request.Voices == null ? null : request.Voices.Select((voice, number) => CreateVoice(voice, tag + ".audio-" + number)).ToList();
            soundtrack = request.SoundtrackPath == null ? null : "./" + AddCopy(request.SoundtrackPath, tag + ".soundtrack");
            background = File.Exists(request.Background) ? "./" + AddCopy(request.Background, tag + ".background") : request.Background;
        }

        /// <summary>Returns UTF-8 without a byte order mark. "./face.jpg" is a file, whatever its suffix; "face" would be a library avatar.</summary>
        public byte[] Serialize()
        {
            var members = new List<KeyValuePair<string, object>>
            {
                CreateMember("AvatarImagePath", avatar),
                CreateMember("TemplateId", request.TemplateId),
                CreateMember("AudioPath", audio),
                CreateMember("Voices", voices),
                CreateMember("FromSeconds", request.FromSeconds),
                CreateMember("ToSeconds", request.ToSeconds),
                CreateMember("SoundtrackPath", soundtrack),
                CreateMember("SoundtrackDb", request.SoundtrackDb),
                CreateMember("Background", background),
                CreateMember("Output", request.KeepAlpha ? new[] { CreateMember("Alpha", true) } : null),
                CreateMember("Motion", request.Motion == null ? null : CreateMotion(request.Motion)),
                CreateMember("Options", CreateOptions()),
                CreateMember("Quality", request.Quality),
                CreateMember("Fps", request.Fps),
                CreateMember("BatchSize", request.BatchSize),
                CreateMember("BboxShift", request.BboxShift),
                CreateMember("Priority", request.Priority),
                CreateMember("CacheKey", Id),
                CreateMember("Engine", request.Engine),
                CreateMember("TimeoutSeconds", request.TimeoutSeconds),
                CreateMember("EnableEmotion", request.EnableEmotion ? (object)true : null)
            };
            try
            {
                return new UTF8Encoding(false, true).GetBytes(Json.Write(members));
            }
            catch (EncoderFallbackException bad)
            {
                throw new MusedropException("bad_value", "a text of the request contains half a surrogate pair", "Send valid Unicode.", bad);
            }
        }

        static KeyValuePair<string, object> CreateMember(string key, object value)
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
            if (request.AudioPath == null && (request.Voices == null || request.Voices.Count == 0))
                throw new MusedropException("missing_key", "the request names no voice", "Set AudioPath.");
            if (request.AudioPath != null && request.Voices != null)
                throw new MusedropException("duplicate_key", "the request has one voice and several", "Set AudioPath or Voices, not both.");
            if (request.Voices != null && request.Voices.Any(voice => voice == null || voice.AudioPath == null))
                throw new MusedropException("missing_key", "a voice of the request names no file", "Set AudioPath of each voice.");
            foreach (var path in ListFiles(request))
                if (!File.Exists(path))
                    throw new MusedropException("missing_media", "there is no file " + path, "Give the path of a file that this program can read.");
        }

        IEnumerable<KeyValuePair<string, object>> CreateVoice(DigitalHumanVoice voice, string stem)
        {
            return new[]
            {
                CreateMember("Face", voice.Face),
                CreateMember("AudioPath", "./" + AddCopy(voice.AudioPath, stem)),
                CreateMember("FromSeconds", voice.FromSeconds)
            };
        }

        static IEnumerable<KeyValuePair<string, object>> CreateMotion(DigitalHumanMotion motion)
        {
            return new[]
            {
                CreateMember("Engine", motion.Engine),
                CreateMember("Prompt", motion.Prompt),
                CreateMember("NegativePrompt", motion.NegativePrompt),
                CreateMember("Seconds", motion.Seconds),
                CreateMember("Seed", motion.Seed),
                CreateMember("Size", motion.Size),
                CreateMember("Variant", motion.Variant),
                CreateMember("Base", motion.Base),
                CreateMember("Guidance", motion.Guidance),
                CreateMember("Steps", motion.Steps),
                CreateMember("Interpolation", motion.Interpolation),
                CreateMember("Clip", motion.KeepClip ? (object)true : null),
                CreateMember("Options", motion.Options)
            };
        }

        /// <summary>Returns the options; a number of a sound track is written as such. Null without any.</summary>
        List<KeyValuePair<string, object>> CreateOptions()
        {
            var options = new List<KeyValuePair<string, object>>(request.Options ?? new Dictionary<string, object>());
            var number = 0;
            var isNumber = int.TryParse(request.AudioTrack, NumberStyles.None, CultureInfo.InvariantCulture, out number);
            if (request.FaceBox != null) options.Add(CreateMember("face_box", request.FaceBox));
            if (request.AudioTrack != null) options.Add(CreateMember("audio_track", isNumber ? (object)number : request.AudioTrack));
            return options.Count == 0 ? null : options;
        }

        static IEnumerable<string> ListFiles(DigitalHumanRequest request)
        {
            var several = request.Voices == null ? new string[0] : request.Voices.Select(voice => voice.AudioPath);
            var behind = File.Exists(request.Background) ? request.Background : null;
            return new[] { request.AvatarImagePath, request.AudioPath, request.SoundtrackPath, behind }.Concat(several).Where(path => path != null);
        }

        /// <summary>Returns a tag of key and content: the same request has the same file names, other content has others.</summary>
        static string ComputeTag(DigitalHumanRequest request)
        {
            var parts = ListFiles(request).Select(Records.ComputeHash);
            return Records.ComputeTextHash(request.CacheKey + "\n" + string.Join("\n", parts)).Substring(0, 8);
        }

        /// <summary>Returns the name in the inbox, and adds the file to `Copies` unless it is in the inbox.</summary>
        string AddCopy(string path, string tag)
        {
            var own = Path.GetFileName(path);
            if (Path.GetFullPath(path) == Path.Combine(inbox, own)) return own;
            var suffix = Path.GetExtension(path);
            var name = MakeSafeName(Path.GetFileNameWithoutExtension(path)) + "-" + tag + (suffix.Length > 1 && suffix.Length <= MaxSuffixLength ? "." + MakeSafeName(suffix.Substring(1)).ToLowerInvariant() : "");
            Copies[name] = path;
            return name;
        }

        /// <summary>Returns `name` as a file name that is valid on every system; the daemon doesn't change it.</summary>
        public static string MakeSafeName(string name)
        {
            var clean = new StringBuilder();
            for (int at = 0, wide = 1; at < name.Length; at += wide)
            {
                wide = char.IsSurrogatePair(name, at) ? 2 : 1;
                var refused = "<>:\"/\\|?*".IndexOf(name[at]) >= 0 || !IsPrintable(name, at);
                clean.Append(refused ? "_" : name.Substring(at, wide));
            }
            return AvoidReserved(Truncate(clean.ToString().Normalize(NormalizationForm.FormC)).TrimEnd('.', ' ').TrimStart());
        }

        /// <summary>Truncates between two text elements, to MaxNameBytes.</summary>
        static string Truncate(string text)
        {
            var end = 0;
            var elements = StringInfo.GetTextElementEnumerator(text);
            while (elements.MoveNext())
            {
                var next = elements.ElementIndex + elements.GetTextElement().Length;
                if (Encoding.UTF8.GetByteCount(text.Substring(0, next)) > MaxNameBytes) break;
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

        static string AvoidReserved(string name)
        {
            if (name.Length == 0) return "job";
            if (name[0] == '.' || name[0] == '-') name = "_" + name.Substring(1);
            var device = name.Split('.')[0].ToUpperInvariant();
            var port = device.Length == 4 && char.IsDigit(device[3]) ? device.Substring(0, 3) : device;
            return Reserved.Contains(port) ? "_" + name : name;
        }
    }
}
